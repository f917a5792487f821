//! Whose files are trusted: owner and mode, as ssh looks at them. Windows has neither.

use std::fs::Metadata;
use std::path::Path;

/// A file that others can do too much with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exposed {
    /// What is wrong with it.
    pub(super) why: String,
    /// The command that mends it.
    pub(super) mend: String,
}

/// A file of settings can start programs, so nobody may change it but who runs this, and root.
#[cfg(unix)]
pub(super) fn can_be_changed(path: &Path, metadata: &Metadata) -> Option<Exposed> {
    use std::os::unix::fs::MetadataExt as _;

    let (owner, mode) = (metadata.uid(), metadata.mode());
    let us = rustix::process::getuid().as_raw();
    if owner != 0 && owner != us {
        let why = format!("it belongs to another user (uid {owner})");
        // Root has been given somebody's home directory, whose files stay theirs.
        let mend = if us == 0 { "sudo -H hithe ...".to_owned() } else { command("chown \"$(id -u)\"", path) };
        return Some(Exposed { why, mend });
    }
    let by_group = mode & 0o020 != 0 && !groups::is_private(owner, metadata.gid());
    (by_group || mode & 0o002 != 0).then(|| Exposed {
        why: format!("others can change it (mode {:04o})", mode & 0o7777),
        mend: command("chmod go-w", path),
    })
}

/// A private key that others can read is none. Somebody else's key is their own affair: what this process can read of it
/// was given to it.
#[cfg(unix)]
pub(super) fn can_be_read(path: &Path, metadata: &Metadata) -> Option<Exposed> {
    use std::os::unix::fs::MetadataExt as _;

    let mode = metadata.mode();
    let is_ours = metadata.uid() == rustix::process::getuid().as_raw();
    (is_ours && mode & 0o077 != 0).then(|| Exposed {
        why: format!("others can read this private key (mode {:04o})", mode & 0o7777),
        mend: command("chmod 600", path),
    })
}

/// A file that ssh would take, whatever the umask is.
#[cfg(test)]
pub(super) fn write_for_us(path: &Path, text: impl AsRef<[u8]>) {
    std::fs::write(path, text).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

#[cfg(not(unix))]
pub(super) fn can_be_changed(_path: &Path, _metadata: &Metadata) -> Option<Exposed> {
    None
}

#[cfg(not(unix))]
pub(super) fn can_be_read(_path: &Path, _metadata: &Metadata) -> Option<Exposed> {
    None
}

#[cfg(unix)]
fn command(what: &str, path: &Path) -> String {
    format!("{what} {}", shell_words::quote(&path.to_string_lossy()))
}

/// Debian, Ubuntu and others give each user a group of their own and let it write new files. Their ssh puts up with that,
/// so a configuration with which ssh works has to be read here, too.
#[cfg(unix)]
mod groups {
    use std::fs;

    /// Whether a group has one member, and that is this user.
    pub(super) fn is_private(user: u32, group: u32) -> bool {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        says_private(&read("/etc/passwd"), &read("/etc/group"), user, group)
    }

    /// With the texts of passwd(5) and group(5). Who is in neither file has no group of their own.
    fn says_private(passwd: &str, groups: &str, user: u32, group: u32) -> bool {
        let number = |field: Option<&&str>| field.and_then(|text| text.parse::<u32>().ok());
        let (mut name, mut is_member) = (None, false);
        for line in passwd.lines() {
            let fields: Vec<_> = line.split(':').collect();
            let is_user = number(fields.get(2)) == Some(user);
            if is_user && name.is_none() {
                name = fields.first().copied();
            }
            if number(fields.get(3)) == Some(group) {
                if !is_user {
                    return false;
                }
                is_member = true;
            }
        }
        for line in groups.lines() {
            let fields: Vec<_> = line.split(':').collect();
            if number(fields.get(2)) != Some(group) {
                continue;
            }
            for member in fields.get(3).iter().flat_map(|members| members.split(',')) {
                match member.trim() {
                    "" => {}
                    member if Some(member) == name => is_member = true,
                    _ => return false,
                }
            }
        }
        is_member
    }

    #[cfg(test)]
    mod tests {
        use super::says_private;

        #[test]
        fn a_group_is_private_if_its_only_member_is_its_user() {
            let passwd = "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/:\nbob:x:1001:1001::/:\neve:x:1002:100::/:\nmal:x:1003:100::/:";
            let groups = "root:x:0:\nada:x:1000:\nbob:x:1001:bob,ada\nusers:x:100:\nwheel:x:7:ada\nnone:x:8:";
            for (user, group, expected) in [
                (0, 0, true),
                (1000, 1000, true),
                (1000, 7, true),
                (1001, 1001, false),
                (1002, 100, false),
                (1000, 8, false),
                (1000, 0, false),
                (1000, 9, false),
                (1999, 1999, false),
            ] {
                assert_eq!(says_private(passwd, groups, user, group), expected, "{user} {group}");
            }
        }
    }
}
