// Requests to the service's HTTP API, with the access token.

const STORAGE_KEY = "token";
let token = sessionStorage.getItem(STORAGE_KEY) || "";

// An error response. `problems` lists what is wrong with a submitted specification, `fields` the
// same with the path of each.
export class ApiError extends Error {
  constructor(status, body) {
    super(body.error || `the service returned HTTP status ${status}`);
    this.status = status;
    this.problems = body.problems || [];
    this.fields = body.fields || [];
  }
}

export const hasToken = () => token !== "";

export function setToken(value) {
  token = value;
  sessionStorage.setItem(STORAGE_KEY, value);
}

// Return the response, or throw an ApiError.
export async function request(path, options = {}) {
  const headers = { ...(options.headers || {}) };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  throw new ApiError(response.status, await response.json().catch(() => ({})));
}

export const getJson = async (path) => (await request(path)).json();

// Save a response as a file. A plain link cannot send the token.
export async function download(path, fileName) {
  const url = URL.createObjectURL(await (await request(path)).blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = fileName;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
