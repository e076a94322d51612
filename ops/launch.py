"""Become another program, on two conditions: it dies with its parent, and on request it does not run as root.

    python -I -S launch.py PARENT SIGNAL FOLDER program arguments…

PARENT is the pid that must be alive; when it dies, Linux sends SIGNAL (a number) to the program. FOLDER is `-`, or the
data folder of a program that refuses to run as root, such as Postgres. Started by root, such a program gets a user
namespace in which root's own user id reads as that of an unprivileged user. Files keep their owner, folders that only
root may enter stay reachable, and nothing on the machine changes: no user is added, no permission widened.

Where namespaces are forbidden (Docker's default profile), it changes to an unprivileged user that owns FOLDER and keeps
the one capability that a folder such as /root asks for. This file imports nothing of Sangha, so that it starts fast.
"""

import ctypes
import os
import sys

#: From <sched.h>, <linux/prctl.h> and <linux/capability.h>.
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522

#: The user that stands in for root. initdb wants one that the machine knows by name.
STANDINS = ("postgres", "nobody")

libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> None:
    """Arrange both conditions and execute the program."""
    parent, signal, folder, *command = arguments
    if folder != "-" and os.geteuid() == 0:
        become_unprivileged(folder)
    die_with(int(parent), int(signal))
    os.execvp(command[0], command)  # noqa: S606 - a command of our own, and no shell


def die_with(parent: int, signal: int) -> None:
    """Have the kernel send `signal` when the parent goes; elsewhere than on Linux this does nothing."""
    if sys.platform == "linux":
        libc.prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel could be asked
            sys.exit(1)


def become_unprivileged(folder: str) -> None:
    """Stop being root, in the way that changes least."""
    user, group = standin()
    if enter_namespace(user, group):
        return
    own(folder, user, group)
    change_user(user, group)


def standin() -> tuple[int, int]:
    """The ids of a user that exists and isn't root."""
    import pwd

    by_name = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    if not by_name:
        sys.exit("sangha: Postgres does not run as root and this machine has no other user: add one with useradd")
    entry = next((by_name[name] for name in STANDINS if name in by_name), next(iter(by_name.values())))
    return entry.pw_uid, entry.pw_gid


def enter_namespace(user: int, group: int) -> bool:
    """Enter a user namespace in which this process is `user`; False where that is forbidden."""
    unshare = getattr(libc, "unshare", None)
    if unshare is None or unshare(CLONE_NEWUSER) != 0:
        return False
    write("/proc/self/setgroups", "deny")
    write("/proc/self/gid_map", f"{group} 0 1")
    write("/proc/self/uid_map", f"{user} 0 1")
    return True


def write(path: str, text: str) -> None:
    """Write a file of /proc in one go, as the kernel asks."""
    with open(path, "w") as file:
        file.write(text)


def own(folder: str, user: int, group: int) -> None:
    """Give a folder and all below it to a user, unless it is theirs."""
    if os.stat(folder).st_uid == user:
        return
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(os.path.join(here, name), user, group, follow_symlinks=False)
    os.chown(folder, user, group)


def change_user(user: int, group: int) -> None:
    """Change to another user, but keep the right to pass folders that only root may enter."""
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
