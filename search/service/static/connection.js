// The connection status in the page header.

const status = document.getElementById("connection");

export const showConnected = () => { status.textContent = ""; };
export const showReconnecting = () => { status.textContent = "reconnecting to the service…"; };
