"""Run another program that is killed with its parent and, on request, does not run as root.

    python -I -S launcher.py PARENT SIGNAL FOLDER program arguments…

PARENT is the pid of the parent; when it dies, Linux sends SIGNAL (a number) to the program. FOLDER is `-`, or the
data folder of a program that refuses to run as root, such as Postgres. Started by root, such a program gets a user
namespace in which root's user id is mapped to that of an unprivileged user. Files keep their owner, folders that only
root can enter stay accessible, and nothing on the machine changes: no user is added, no permission widened.

Where user namespaces are forbidden (Docker's default profile), it gives FOLDER to an unprivileged user, changes to that
user and keeps the capability to enter folders such as /root. This file imports nothing of Sangha, so that it starts
fast.
"""

import ctypes
import os
import sys

#: From <sched.h>, <linux/prctl.h> and <linux/capability.h>.
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522

#: Preferred unprivileged users, the first that exists; initdb requires one with a name.
UNPRIVILEGED_USERS = ("postgres", "nobody")

libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> None:
    """Drop root, set the parent-death signal and execute the program."""
    parent, signal, folder, *command = arguments
    if folder != "-" and os.geteuid() == 0:
        drop_root(folder)
    set_parent_death_signal(int(parent), int(signal))
    os.execvp(command[0], command)  # noqa: S606 - a command of our own, and no shell


def set_parent_death_signal(parent: int, signal: int) -> None:
    """Have the kernel send `signal` when the parent dies. Does nothing on other systems than Linux."""
    if sys.platform == "linux":
        libc.prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0)
        if os.getppid() != parent:  # it died before prctl was called
            sys.exit(1)


def drop_root(folder: str) -> None:
    """Drop root by a user namespace, or else by changing the user."""
    user, group = unprivileged_user()
    if enter_namespace(user, group):
        return
    change_owner(folder, user, group)
    change_user(user, group)


def unprivileged_user() -> tuple[int, int]:
    """Return the user and group id of an existing user other than root."""
    import pwd

    by_name = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    if not by_name:
        sys.exit("sangha: Postgres does not run as root and this machine has no other user: add one with `useradd`")
    entry = next((by_name[name] for name in UNPRIVILEGED_USERS if name in by_name), next(iter(by_name.values())))
    return entry.pw_uid, entry.pw_gid


def enter_namespace(user: int, group: int) -> bool:
    """Enter a user namespace in which this process runs as `user`. Returns False where that is forbidden."""
    unshare = getattr(libc, "unshare", None)
    if unshare is None or unshare(CLONE_NEWUSER) != 0:
        return False
    write("/proc/self/setgroups", "deny")
    write("/proc/self/gid_map", f"{group} 0 1")
    write("/proc/self/uid_map", f"{user} 0 1")
    return True


def write(path: str, text: str) -> None:
    """Write a file of /proc with a single write, as the kernel requires."""
    with open(path, "w") as file:
        file.write(text)


def change_owner(folder: str, user: int, group: int) -> None:
    """Change the owner of a folder and everything in it, unless the user owns it already."""
    if os.stat(folder).st_uid == user:
        return
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(os.path.join(parent, name), user, group, follow_symlinks=False)
    os.chown(folder, user, group)


def change_user(user: int, group: int) -> None:
    """Change to another user and keep the capability to enter folders that only root can enter."""
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    bit = 1 << CAP_DAC_OVERRIDE
    libc.capset(header, (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0))  # effective, permitted, inheritable; low, high
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
