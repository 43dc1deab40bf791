// A delay to await.

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
