// Where the links in letters lead. Nothing happens before somebody presses a button: programs that look at links before
// people do would use them up.

const $ = (selector) => document.querySelector(selector);
const token = new URLSearchParams(location.search).get("token");
const pass = localStorage.getItem("token");

// The secret shall not stay in the address bar, nor in the history.
history.replaceState(null, "", location.pathname);

const forms = {
  "/auth/verify": {
    form: "verify", title: "Confirm your address", path: "/auth/email/verify",
    done: (answer) => `${answer.email} is confirmed.`,
  },
  "/auth/reset": token
    ? {
      form: "reset", title: "Set a new password", path: "/auth/password/reset",
      done: () => "The password is set, and all sessions have ended. Log in with it.",
    }
    : {
      form: "forgot", title: "Forgot your password?", path: "/auth/password/forgot",
      done: () => "If this address has an account, a letter is on its way.",
    },
  "/auth/invitation": {
    form: "invitation", title: "Join an account", path: "/auth/invitations/accept",
    done: (answer) => `You have joined, as ${answer.account.role}. Log in as ${answer.user.email}.`,
  },
};

function say(text) { $("#state").textContent = text; }

async function send(path, fields) {
  const given = Object.fromEntries(Object.entries(fields).filter(([, value]) => value));
  const headers = { "content-type": "application/json" };
  if (page.form === "verify" && !given.password && pass) headers.authorization = `Bearer ${pass}`;
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(given) });
  const value = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(value.error.message), { status: answer.status });
  return value;
}

// Who confirms an address is who signed up with it: somebody who is logged in here, or who knows the password.
function askPassword() {
  const label = $("#verify label");
  label.hidden = false;
  label.querySelector("input").required = true;
}

const page = forms[location.pathname];
const form = $(`#${page.form}`);
say(page.title);
form.hidden = page.form !== "forgot" && !token;
if (!pass) askPassword();
if (form.hidden) say("This link is not complete: open it as it stands in the letter.");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const fields = Object.fromEntries(new FormData(form));
    say(page.done(await send(page.path, token ? { token, ...fields } : fields)));
    form.hidden = true;
    $("#onward").hidden = false;
  } catch (error) {
    const unknown = page.form === "verify" && [401, 403].includes(error.status) && $("#verify label").hidden;
    if (unknown) askPassword();
    say(unknown ? "Give the password that you signed up with." : error.message);
    button.disabled = false;
  }
});
