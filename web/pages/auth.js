// The pages behind the links in e-mails. Nothing is sent before the user clicks a button: mail scanners that open links
// would use the token up.

const $ = (selector) => document.querySelector(selector);
const emailToken = new URLSearchParams(location.search).get("token");
const accessToken = localStorage.getItem("token");

// Remove the token from the address bar and the browser's history.
history.replaceState(null, "", location.pathname);

const PAGES = {
  "/auth/verify": {
    form: "verify", title: "Confirm your e-mail address", path: "/auth/email/verify",
    done: (response) => `${response.email} is confirmed.`,
  },
  "/auth/reset": emailToken
    ? {
      form: "reset", title: "Set a new password", path: "/auth/password/reset",
      done: () => "The password has been changed, and all sessions have been logged out. Log in with the new password.",
    }
    : {
      form: "forgot", title: "Forgot your password?", path: "/auth/password/forgot",
      done: () => "If there is an account with this address, we have sent it an e-mail.",
    },
  "/auth/invitation": {
    form: "invitation", title: "Join an account", path: "/auth/invitations/accept",
    done: (response) => `You have joined the account as ${response.account.role}. Log in as ${response.user.email}.`,
  },
};

function showStatus(text) { $("#state").textContent = text; }

async function post(path, fields) {
  const body = Object.fromEntries(Object.entries(fields).filter(([, value]) => value));
  const headers = { "content-type": "application/json" };
  if (page.form === "verify" && !body.password && accessToken) headers.authorization = `Bearer ${accessToken}`;
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  const value = await response.json();
  if (!response.ok) throw Object.assign(new Error(value.error.message), { status: response.status });
  return value;
}

// Only the user who signed up with an address may confirm it: by a login in this browser, or by the password.
function requirePassword() {
  const label = $("#verify label");
  label.hidden = false;
  label.querySelector("input").required = true;
}

const page = PAGES[location.pathname];
const form = $(`#${page.form}`);
showStatus(page.title);
form.hidden = page.form !== "forgot" && !emailToken;
if (!accessToken) requirePassword();
if (form.hidden) showStatus("This link is incomplete. Copy the whole link from the e-mail.");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const fields = Object.fromEntries(new FormData(form));
    showStatus(page.done(await post(page.path, emailToken ? { token: emailToken, ...fields } : fields)));
    form.hidden = true;
    $("#home-link").hidden = false;
  } catch (error) {
    const needsPassword = page.form === "verify" && [401, 403].includes(error.status) && $("#verify label").hidden;
    if (needsPassword) requirePassword();
    showStatus(needsPassword ? "Enter the password that you signed up with." : error.message);
    button.disabled = false;
  }
});
