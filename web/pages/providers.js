// Logging in with other providers: where to, and coming back. What a provider gave stands in the fragment of the
// address, which no server sees; it is good once, and in this browser only.

const REASONS = {
  access_denied: "You did not let the provider tell us who you are.",
  login_expired: "This login is over: begin again.",
  provider_unavailable: "The provider does not answer. Try again later.",
  provider_failed: "The provider's answer can't be trusted: begin again.",
  email_missing: "The provider tells no e-mail address of yours.",
};

export async function offer(place) {
  const answer = await fetch("/auth/oidc");
  const providers = answer.ok ? (await answer.json()).data : [];
  place.replaceChildren(...providers.map(({ id, name }) => {
    const link = document.createElement("a");
    link.className = "button";
    link.href = `/auth/oidc/${encodeURIComponent(id)}`;
    link.textContent = `Log in with ${name}`;
    return link;
  }));
}

// The tokens of somebody who has just come back; null for everybody else. Throws what to tell them.
export async function arrive() {
  const told = new URLSearchParams(location.hash.slice(1));
  const [code, reason] = [told.get("login"), told.get("login_error")];
  if (!code && !reason) return null;
  history.replaceState(null, "", location.pathname);
  if (reason) throw new Error(REASONS[reason] ?? "Logging in with the provider did not work: begin again.");
  const answer = await fetch("/auth/oidc/exchange", { method: "POST", body: JSON.stringify({ code }) });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error.message);
  return value;
}
