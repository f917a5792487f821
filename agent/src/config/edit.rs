//! Changes to a file that leave the rest of it as it is: order, comments and blanks.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::emit::{comment, scalar};
use super::settings::RENAMED;
use super::tree::{self, Entry, Node, Value};
use super::{Fault, Position};

/// The text with a setting of the agent changed or added.
///
/// # Errors
/// The file is wrong as it is, or has the key in a form that cannot be changed in place.
pub(super) fn set(file: &Path, text: &str, key: &str, value: &str) -> Result<String, Fault> {
    let root = tree::parse(file, text.as_bytes())?;
    if root.is_null() {
        let comments = text.trim_end();
        let gap = if comments.is_empty() { "" } else { "\n\n" };
        return Ok(format!("{comments}{gap}version: 3\nagent:\n  {key}: {}\n", scalar(value)));
    }
    let version = super::version(&root)?;
    let older = RENAMED.iter().find(|(_, now)| *now == key).map(|(then, _)| *then);
    let top = root.map("")?;
    let agent = top.iter().find(|entry| entry.key == "agent");
    let settings =
        if version == 3 { agent.map_or(&[][..], |it| it.node.map("agent").unwrap_or_default()) } else { top };
    let there = settings.iter().find(|entry| entry.key == key || Some(entry.key.as_str()) == older);
    let changed = match (there, version) {
        (Some(entry), _) => replace(text, entry, value),
        (None, 2) => {
            let key = older.unwrap_or(key);
            let line = top.iter().find(|it| it.key == "version").map_or(0, |it| it.position.line);
            insert(text, line, &format!("{key}: {}", scalar(value)))
        }
        (None, _) => add_to_agent(text, top, agent, &format!("{key}: {}", scalar(value))),
    };
    let in_the_way = || {
        let position = there.map_or(&root.position, |entry| &entry.position);
        Fault::at(position, key, "cannot be changed in place as it stands here: `hithe config edit`")
    };
    let changed = changed.ok_or_else(in_the_way)?;
    // Whatever the lines looked like: nothing but this key may be another now.
    let after = tree::parse(file, changed.as_bytes()).map_err(|_| in_the_way())?;
    let expected = with(&root, version, there.map_or(key, |it| it.key.as_str()), older, value);
    if same(&after, &expected) { Ok(changed) } else { Err(in_the_way()) }
}

/// The tree as it has to be afterwards.
fn with(root: &Node, version: u8, key: &str, older: Option<&str>, value: &str) -> Node {
    let mut root = root.clone();
    let position = root.position.clone();
    let node = |value| Node { value, position: position.clone() };
    let entry =
        |key: &str, value| Entry { key: key.to_owned(), position: position.clone(), node: node(value) };
    let is_there = root.get(key).is_some()
        || matches!(&root.value, Value::Map(map) if map.iter().any(|it| it.key == key));
    let setting = match version {
        2 if !is_there => entry(older.unwrap_or(key), Value::Text(value.to_owned())),
        _ => entry(key, Value::Text(value.to_owned())),
    };
    let setting = if version == 3 { entry("agent", Value::Map(vec![setting])) } else { setting };
    if let Value::Map(map) = &mut root.value {
        tree::put(map, setting);
    }
    root
}

/// Whether two trees say the same, wherever it stands.
fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::Map(one), Value::Map(other)) => {
            let there =
                |entry: &Entry| other.iter().any(|it| it.key == entry.key && same(&entry.node, &it.node));
            one.len() == other.len() && one.iter().all(there)
        }
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (one, other) => one == other,
    }
}

/// The value on the line of its key, in place of the one that is there.
fn replace(text: &str, entry: &Entry, value: &str) -> Option<String> {
    if !matches!(entry.node.value, Value::Text(_) | Value::Null) {
        return None;
    }
    let number = usize::try_from(entry.position.line).ok()?.checked_sub(1)?;
    let mut lines: Vec<_> = text.split('\n').map(str::to_owned).collect();
    let line = lines.get_mut(number)?;
    let end = if line.ends_with('\r') { "\r" } else { "" };
    let (before, behind) = line.split_once(':')?;
    let beside = comment(behind).and_then(|at| behind.get(at..)).map(str::trim_end);
    let beside = beside.map(|it| format!(" {it}")).unwrap_or_default();
    *line = format!("{before}: {}{beside}{end}", scalar(value));
    Some(lines.join("\n"))
}

/// A line behind the one of this number.
fn insert(text: &str, behind: u64, line: &str) -> Option<String> {
    let mut lines: Vec<_> = text.split('\n').collect();
    let end = if lines.first().is_some_and(|it| it.ends_with('\r')) { "\r" } else { "" };
    let at = usize::try_from(behind).ok()?.min(lines.len());
    let line = format!("{line}{end}");
    lines.insert(at, &line);
    if at + 1 == lines.len() {
        lines.push("");
    }
    Some(lines.join("\n"))
}

fn add_to_agent(text: &str, top: &[Entry], agent: Option<&Entry>, line: &str) -> Option<String> {
    let Some(agent) = agent else {
        let version = top.iter().find(|it| it.key == "version")?.position.line;
        return insert(text, version, &format!("agent:\n  {line}"));
    };
    let first = match &agent.node.value {
        Value::Null => return insert(text, agent.position.line, &format!("  {line}")),
        Value::Map(map) => map.first()?,
        Value::Text(_) | Value::List(_) => return None,
    };
    if first.position.line == agent.position.line {
        return None;
    }
    let indent = usize::try_from(first.position.column.checked_sub(1)?).ok()?;
    insert(text, agent.position.line, &format!("{}{line}", " ".repeat(indent)))
}

/// Writes a file as a whole or not at all: in the mode of the one that is there, or for the user alone.
///
/// # Errors
/// The folder cannot be written to.
pub(super) fn write(file: &Path, text: &str) -> io::Result<()> {
    // Behind a link.
    let file = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut fresh = tempfile::Builder::new().prefix(".hithe").tempfile_in(folder)?;
    fresh.write_all(text.as_bytes())?;
    if let Ok(before) = std::fs::metadata(&file) {
        fresh.as_file().set_permissions(keep_owner(fresh.as_file(), &before)?)?;
    }
    fresh.as_file().sync_all()?;
    fresh.persist(&file)?;
    Ok(())
}

/// Gives a file the owner of the one whose place it takes: root may change it for a service of somebody else. What it gives
/// is the mode, which means another group where that cannot be kept.
#[cfg(unix)]
fn keep_owner(file: &std::fs::File, before: &std::fs::Metadata) -> io::Result<std::fs::Permissions> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
    let (now, mode) = (file.metadata()?, before.permissions());
    if now.uid() != before.uid() {
        fchown(file, Some(before.uid()), Some(before.gid()))
            .map_err(|error| io::Error::new(error.kind(), format!("its owner cannot be kept: {error}")))?;
    } else if now.gid() != before.gid() && fchown(file, None, Some(before.gid())).is_err() {
        return Ok(std::fs::Permissions::from_mode(mode.mode() & !0o070));
    }
    Ok(mode)
}

/// On Windows a file has the rights of its folder.
#[cfg(not(unix))]
fn keep_owner(_: &std::fs::File, before: &std::fs::Metadata) -> io::Result<std::fs::Permissions> {
    Ok(before.permissions())
}

/// A copy beside the file, for the user alone.
///
/// # Errors
/// The folder cannot be written to.
pub(super) fn keep_copy(file: &Path, text: &str) -> io::Result<PathBuf> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".bak");
    let copy = file.with_file_name(name);
    let _ = std::fs::remove_file(&copy);
    write(&copy, text)?;
    Ok(copy)
}

pub(super) fn failed(file: &Path, what: &str, error: &io::Error) -> Fault {
    Fault::at(&Position::file(file), "", format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn who_changes_a_file_of_somebody_else_leaves_it_theirs() {
        use std::os::unix::fs::{MetadataExt as _, chown};
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hithe.yml");
        std::fs::write(&file, "old").unwrap();
        // Only root can make it so.
        if chown(&file, Some(65534), Some(65534)).is_err() {
            return;
        }
        write(&file, "new").unwrap();
        let about = std::fs::metadata(&file).unwrap();
        assert_eq!((about.uid(), about.gid()), (65534, 65534));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
    }

    fn changed(text: &str, key: &str, value: &str) -> String {
        set(Path::new("a.yml"), text, key, value).unwrap()
    }

    #[test]
    fn a_setting_is_changed_in_its_line_and_nothing_else_is() {
        let text = "# mine\nversion: 2\n\nauthtoken:   'old'   # of Ada\r\nserver_addr: a:1\ntunnels:\n    web: {proto: http}   # odd\n";
        assert_eq!(
            changed(text, "authtoken", "new"),
            text.replace("authtoken:   'old'   # of Ada", "authtoken: new # of Ada")
        );
        assert_eq!(changed(text, "connect_url", "b:2"), text.replace("a:1", "b:2"));
        let third = "version: 3\nagent:\n    log: false\n    authtoken: \"a # b\"\n";
        assert_eq!(changed(third, "authtoken", "c: d"), third.replace("\"a # b\"", "\"c: d\""));
        assert_eq!(changed("version: 2\nauthtoken:\n", "authtoken", "x"), "version: 2\nauthtoken: x\n");
    }

    #[test]
    fn a_setting_that_is_not_there_is_added_where_it_belongs() {
        for (text, expected) in [
            ("", "version: 3\nagent:\n  authtoken: x\n"),
            ("# mine\n", "# mine\n\nversion: 3\nagent:\n  authtoken: x\n"),
            ("version: 2", "version: 2\nauthtoken: x\n"),
            ("version: 2\nlog: false\n", "version: 2\nauthtoken: x\nlog: false\n"),
            ("version: 3\n", "version: 3\nagent:\n  authtoken: x\n"),
            ("version: 3\nagent:\n", "version: 3\nagent:\n  authtoken: x\n"),
            ("version: 3\r\nagent:\r\n", "version: 3\r\nagent:\r\n  authtoken: x\r\n"),
            (
                "version: 3\nagent:\n    log: false\n",
                "version: 3\nagent:\n    authtoken: x\n    log: false\n",
            ),
            ("endpoints: []\nversion: 3 # !\n", "endpoints: []\nversion: 3 # !\nagent:\n  authtoken: x\n"),
        ] {
            assert_eq!(changed(text, "authtoken", "x"), expected, "{text:?}");
        }
        assert_eq!(changed("version: 2\n", "connect_url", "a"), "version: 2\nserver_addr: a\n");
    }

    #[test]
    fn what_cannot_be_changed_in_place_is_left_alone() {
        for text in [
            "{version: 3, agent: {authtoken: x}}\n",
            "version: 2\nauthtoken: >-\n  long\n  token\n",
            "version: 2\nauthtoken: [x]\n",
            "version: 3\nagent: {log: false}\n",
            "version: 2\nauthtoken: &a x\nmetadata: *a\n",
        ] {
            let fault = set(Path::new("a.yml"), text, "authtoken", "y").unwrap_err();
            assert!(fault.message.contains("hithe config edit"), "{text:?}: {fault}");
        }
        assert!(set(Path::new("a.yml"), "a: [\n", "authtoken", "y").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_for_the_user_alone_and_an_old_one_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/hithe.yml");
        let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        write(&file, "a").unwrap();
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link.yml");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, "b").unwrap();
        assert_eq!((mode(), std::fs::read_to_string(&file).unwrap().as_str()), (0o640, "b"));
        assert!(link.is_symlink());
        let copy = keep_copy(&file, "b").unwrap();
        assert!(copy.ends_with("hithe.yml.bak"));
        assert_eq!(std::fs::metadata(copy).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
