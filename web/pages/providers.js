// Login with OpenID Connect providers: links to them, and the return from them. The result is in the fragment of the
// URL, which browsers send to no server; it is valid once, and in this browser only.

const LOGIN_ERRORS = {
  access_denied: "The login was cancelled at the provider.",
  login_expired: "The login has expired. Please start again.",
  provider_unavailable: "The provider cannot be reached. Please try again later.",
  provider_failed: "The provider's response was invalid. Please start again.",
  email_missing: "The provider did not send your e-mail address.",
  signup_closed: "Signing up is closed on this installation.",
  invitation_required: "Signing up needs an invitation.",
  domain_not_allowed: "E-mail addresses of this domain cannot sign up here.",
};

export async function showProviders(container) {
  const response = await fetch("/auth/oidc");
  const providers = response.ok ? (await response.json()).data : [];
  container.replaceChildren(...providers.map(({ id, name }) => {
    const link = document.createElement("a");
    link.className = "button";
    link.href = `/auth/oidc/${encodeURIComponent(id)}`;
    link.textContent = `Log in with ${name}`;
    return link;
  }));
}

// Return the tokens after a login at a provider, or null if there was none. Throws with a message for the user.
export async function finishLogin() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const [code, reason] = [fragment.get("login"), fragment.get("login_error")];
  if (!code && !reason) return null;
  history.replaceState(null, "", location.pathname);
  if (reason) throw new Error(LOGIN_ERRORS[reason] ?? "The login with the provider failed. Please start again.");
  const response = await fetch("/auth/oidc/exchange", { method: "POST", body: JSON.stringify({ code }) });
  const value = await response.json();
  if (!response.ok) throw new Error(value.error.message);
  return value;
}
