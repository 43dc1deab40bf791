// The form that asks for the access token.

import { setToken } from "./api.js";
import { el, errorMessage, showContent } from "./dom.js";

// Call `onToken` after the user enters a token. `error` is the reason for a refusal, or null.
export function showTokenForm(error, onToken) {
  const field = el("input", { type: "password", id: "token", required: true, autocomplete: "current-password" });
  const submit = (event) => {
    event.preventDefault();
    setToken(field.value.trim());
    onToken();
  };
  showContent(el("h1", {}, "Sign in"), error ? errorMessage(error) : null, el("form", { onsubmit: submit },
    el("label", { for: "token" }, "Access token (servetune serve prints the path of the token file)"), field,
    el("p", {}, el("input", { type: "submit", value: "Sign in" }))));
  field.focus();
}
