//! The agent's file: YAML in the forms of ngrok's versions 2 and 3, so that such a file works as it is but for the
//! address of the server.
//!
//! A file becomes a tree that knows its lines (`tree`), the trees of several files are laid over one another, and
//! of the result the [`Settings`] are decoded and each endpoint is translated into the words of a command line.

mod advice;
mod command;
mod decode;
mod edit;
mod emit;
mod endpoints;
mod keys;
mod reference;
mod settings;
mod tree;
mod upgrade;

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use hithe_cli_parser::{Secret, printable};

use crate::connect::{Route, ServerOptions, SshConfigFile};
use crate::endpoint::Endpoint;
use crate::inspect::AllowedHost;
use keys::List;
use tree::{Entry, Node, Value};

pub(crate) use command::{ConfigCommand, run};
pub(crate) use keys::in_place_of;

pub use settings::{
    ConsoleColor, ConsoleUi, HostKeys, InspectSize, LocalPath, LogFormat, LogLevel, LogTarget, Note,
    Settings, Ssh, SshConfig, Time, WebAddress,
};
pub use tree::Position;

/// What the files say, all of it checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub settings: Settings,
    /// First those of `tunnels`, then those of `endpoints`, in the order of the files.
    pub endpoints: Vec<Endpoint>,
    /// What the user should know: keys that mean nothing here, a file that others can read.
    pub notes: Vec<Fault>,
    /// Those that were read, the later over the earlier.
    pub files: Vec<PathBuf>,
}

/// Something in a file that is wrong, or worth knowing.
#[derive(Clone, PartialEq, Eq)]
pub struct Fault {
    pub position: Option<Position>,
    /// Which key, as in `tunnels.web.basic_auth`; empty for the file as a whole.
    pub path: String,
    /// Never with the value of a secret.
    pub message: String,
}

type Faults = Vec<Fault>;

impl Fault {
    fn at(position: &Position, path: &str, message: impl Into<String>) -> Self {
        let path = printable(path).into_owned();
        Self { position: Some(position.clone()), path, message: message.into() }
    }
}

/// `hithe.yml:7:5: tunnels.web.basic_aut: not known; did you mean basic_auth?`
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = &self.position {
            write!(f, "{position}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why there is no [`Config`]: everything that is wrong, a line each.
#[derive(Debug)]
pub struct ConfigError {
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl From<Fault> for ConfigError {
    fn from(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }
}

/// The token of the environment goes before that of the files.
const TOKEN: &str = "HITHE_TOKEN";

impl Config {
    /// The files in their order, later ones over earlier ones; without any, the one at [`default_path`] if it is there.
    ///
    /// # Errors
    /// A file cannot be read, or says what cannot be done: all of it, each with its line.
    pub fn load(paths: &[PathBuf]) -> Result<Self, ConfigError> {
        let usual = default_path().filter(|path| paths.is_empty() && path.exists());
        let token = std::env::var(TOKEN).ok();
        Self::load_with(&usual.map_or_else(|| paths.to_vec(), |path| vec![path]), token)
    }

    fn load_with(paths: &[PathBuf], token: Option<String>) -> Result<Self, ConfigError> {
        let files = paths.iter().map(|path| Ok((path.clone(), read(path)?)));
        let files = files.collect::<Result<Vec<_>, Fault>>()?;
        let mut config = Self::of(&files)?;
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            config.settings.authtoken = Some(Secret::new(token));
        }
        Ok(config)
    }

    /// Of what stands in the files.
    fn of(files: &[(PathBuf, Vec<u8>)]) -> Result<Self, ConfigError> {
        let mut all = Parts::default();
        let mut notes = Vec::new();
        let mut faults = Vec::new();
        for (path, bytes) in files {
            match tree::parse(path, bytes) {
                Ok(root) => {
                    let parts = Parts::of(&root, &mut notes, &mut faults);
                    if parts.settings.iter().any(|entry| entry.key == "authtoken") {
                        notes.extend(exposed(path));
                    }
                    all.merge(parts);
                }
                Err(fault) => faults.push(fault),
            }
        }
        let settings = decode::decode::<Settings>(&all.settings()).map_err(|fault| {
            // What is wrong in one file has been said with its path.
            if faults.is_empty() {
                faults.push(fault);
            }
        });
        let mut endpoints = Vec::new();
        for (list, entries) in [(List::Tunnels, &all.tunnels), (List::Endpoints, &all.endpoints)] {
            let read = |entry| endpoints::endpoint(entry, list, &mut notes, &mut faults);
            endpoints.extend(entries.iter().filter_map(read));
        }
        for entry in &all.endpoints {
            if all.tunnels.iter().any(|tunnel| tunnel.key == entry.key) {
                let path = format!("endpoints.{}", entry.key);
                faults.push(Fault::at(&entry.position, &path, "there is a tunnel of this name"));
            }
        }
        match settings {
            Ok(mut settings) if faults.is_empty() => {
                let is_said = |key: &str| all.settings.iter().any(|entry| entry.key == key);
                settings.web_addr_is_said = is_said("web_addr");
                settings.connect_timeout_is_said = is_said("connect_timeout");
                Ok(Self { settings, endpoints, notes, files: files.iter().map(|it| it.0.clone()).collect() })
            }
            _ => Err(ConfigError { faults }),
        }
    }
}

/// One endpoint in the fields of a file, with its `name`: of `endpoints` if it has an `upstream`, else of `tunnels`.
///
/// # Errors
/// As for a file.
pub(crate) fn endpoint_of(mut fields: serde_json::Value) -> Result<Endpoint, ConfigError> {
    let fault =
        |message: &str| Fault { position: None, path: "name".to_owned(), message: message.to_owned() };
    let name = fields.get("name").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let Some(map) = fields.as_object_mut().filter(|_| !name.is_empty()) else {
        return Err(fault("missing: an endpoint has a name").into());
    };
    let file = if map.contains_key("upstream") {
        serde_json::json!({ "version": 3, "endpoints": [map] })
    } else {
        map.remove("name");
        serde_json::json!({ "version": 2, "tunnels": { name: map } })
    };
    // JSON is YAML.
    let config = Config::of(&[(PathBuf::from("request"), file.to_string().into_bytes())])?;
    config.endpoints.into_iter().next().ok_or_else(|| fault("nothing to publish").into())
}

/// A file in the form that both versions have in common.
#[derive(Debug, Default)]
struct Parts {
    /// By their names of version 3.
    settings: Vec<Entry>,
    tunnels: Vec<Entry>,
    /// By name.
    endpoints: Vec<Entry>,
}

impl Parts {
    fn of(root: &Node, notes: &mut Faults, faults: &mut Faults) -> Self {
        let mut parts = Self::default();
        if root.is_null() {
            return parts;
        }
        let result = version(root).and_then(|version| Ok((version, root.map("")?)));
        let (version, root) = match result {
            Ok(it) => it,
            Err(fault) => {
                faults.push(fault);
                return parts;
            }
        };
        for entry in root {
            let result = match (entry.key.as_str(), version) {
                ("version", _) => Ok(()),
                ("tunnels", _) => parts.take_tunnels(&entry.node),
                ("endpoints", 3) => parts.take_endpoints(&entry.node),
                ("agent", 3) => entry.node.map("agent").map(|map| parts.settings.extend(map.iter().cloned())),
                (_, 2) => {
                    parts.settings.push(entry.clone());
                    Ok(())
                }
                _ => Err(misplaced(entry)),
            };
            faults.extend(result.err());
        }
        parts.settle_settings(version, notes, faults);
        parts
    }

    fn take_tunnels(&mut self, node: &Node) -> Result<(), Fault> {
        self.tunnels = node.map("tunnels")?.to_vec();
        Ok(())
    }

    fn take_endpoints(&mut self, node: &Node) -> Result<(), Fault> {
        let list: &[Node] = match &node.value {
            Value::Null => &[],
            Value::List(list) => list,
            _ => {
                let message = "a list belongs here, each entry with a hyphen: - name: web";
                return Err(node.fault("endpoints", message));
            }
        };
        for (index, node) in list.iter().enumerate() {
            let path = format!("endpoints[{index}]");
            node.map(&path)?;
            let name = node.get("name").ok_or_else(|| node.fault(&path, "missing: say name: and a name"))?;
            let key = name.text(&format!("{path}.name"))?.to_owned();
            if self.endpoints.iter().any(|it| it.key == key) {
                return Err(name.fault(&format!("endpoints.{key}"), "there are two of this name"));
            }
            self.endpoints.push(Entry { key, position: node.position.clone(), node: node.clone() });
        }
        Ok(())
    }

    /// Takes out what means nothing, and says so; gives older keys their names of today; says what is wrong.
    fn settle_settings(&mut self, version: u8, notes: &mut Faults, faults: &mut Faults) {
        let prefix = if version == 3 { "agent." } else { "" };
        let mut settings: Vec<Entry> = Vec::new();
        for mut entry in std::mem::take(&mut self.settings) {
            let path = format!("{prefix}{}", entry.key);
            if let Some((_, now)) = settings::RENAMED.iter().find(|(then, _)| *then == entry.key) {
                (*now).clone_into(&mut entry.key);
            }
            if let Some((_, why)) = settings::MEANINGLESS.iter().find(|(key, _)| *key == entry.key) {
                notes.push(Fault::at(&entry.position, &path, *why));
                continue;
            }
            if !reference::is_setting(&entry.key) {
                let known = reference::top_level(version);
                let message = match (entry.key.as_str(), version) {
                    ("agent" | "endpoints", 2) => "not known in version 2: say version: 3".to_owned(),
                    _ => decode::not_known(&entry.key, known.iter().map(String::as_str)),
                };
                faults.push(Fault::at(&entry.position, &path, message));
                continue;
            }
            if settings.iter().any(|it| it.key == entry.key) {
                faults.push(Fault::at(&entry.position, &path, format!("says the same as {}", entry.key)));
                continue;
            }
            settings.push(entry);
        }
        self.settings = settings;
        for Entry { key, node, .. } in &self.settings {
            let check = match key.as_str() {
                "connect_url" => server_address,
                "proxy_url" => proxy_address,
                "web_allow_hosts" => allowed_host,
                _ => continue,
            };
            let path = format!("{prefix}{key}");
            // What is no text is told below.
            for (node, text) in node.list().iter().filter_map(|node| Some((node, node.text(&path).ok()?))) {
                faults.extend(check(text).err().map(|why| node.fault(&path, why.replace("\n  ", "; "))));
            }
        }
        for piece in self.settings().pieces() {
            if let Err(mut fault) = decode::decode::<Settings>(&piece) {
                fault.path = format!("{prefix}{}", fault.path);
                // That of a whole has as many pieces.
                if faults.last() != Some(&fault) {
                    faults.push(fault);
                }
            }
        }
    }

    fn settings(&self) -> Node {
        let position = self.settings.first().map(|entry| entry.position.clone());
        let position = position.unwrap_or_else(|| Position::file(Path::new("")));
        Node { value: Value::Map(self.settings.clone()), position }
    }

    fn merge(&mut self, over: Self) {
        for (under, over) in [
            (&mut self.settings, over.settings),
            (&mut self.tunnels, over.tunnels),
            (&mut self.endpoints, over.endpoints),
        ] {
            over.into_iter().for_each(|entry| tree::put(under, entry));
        }
    }
}

/// What does not stand at the top level of version 3.
fn misplaced(entry: &Entry) -> Fault {
    let is_setting = |key: &str| {
        let known = |table: &[(&str, &str)]| table.iter().any(|(it, _)| *it == key);
        reference::is_setting(key) || known(settings::MEANINGLESS) || known(settings::RENAMED)
    };
    let message = if is_setting(&entry.key) {
        "in version 3 this stands below agent:".to_owned()
    } else {
        decode::not_known(&entry.key, reference::top_level(3).iter().map(String::as_str))
    };
    Fault::at(&entry.position, &entry.key, message)
}

fn version(root: &Node) -> Result<u8, Fault> {
    root.map("")?;
    let node = root
        .get("version")
        .ok_or_else(|| root.fault("version", "missing: begin the file with version: 3"))?;
    match node.text("version")? {
        "2" => Ok(2),
        "3" => Ok(3),
        "1" => Err(node.fault("version", "version 1 is too old: `ngrok config upgrade` makes 2 of it")),
        _ => Err(node.fault("version", "2 or 3 belongs here")),
    }
}

/// Whether a server can be meant, as `--server` has it.
fn server_address(address: &str) -> Result<(), String> {
    let options = ServerOptions {
        address: Some(address.to_owned()),
        ssh_config: SshConfigFile::None,
        proxy: Some(Secret::new("none".to_owned())),
        ..ServerOptions::default()
    };
    Route::resolve(&options).map(drop).map_err(|error| error.in_full())
}

/// Whether a proxy can be meant. Not repeated, since it may hold a password.
fn proxy_address(url: &str) -> Result<(), String> {
    let options = ServerOptions {
        address: Some("server".to_owned()),
        ssh_config: SshConfigFile::None,
        proxy: Some(Secret::new(url.to_owned())),
        ..ServerOptions::default()
    };
    Route::resolve(&options).map(drop).map_err(|error| error.in_full())
}

/// Whether it is something under which the inspector may be called.
fn allowed_host(host: &str) -> Result<(), String> {
    host.parse::<AllowedHost>().map(drop).map_err(|error| error.to_string())
}

/// Not more than is too much.
fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    let fault = |error: std::io::Error| Fault::at(&Position::file(path), "", advice::of_reading(&error));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(fault)?;
    file.take(tree::MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(fault)?;
    Ok(bytes)
}

/// Whether others can read the file, in which there is a token.
#[cfg(unix)]
fn exposed(path: &Path) -> Option<Fault> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    let message = "others on this machine can read the token in it: chmod 600";
    (mode & 0o044 != 0).then(|| {
        Fault::at(&Position::file(path), "", format!("{message} {}", printable(&path.to_string_lossy())))
    })
}

#[cfg(not(unix))]
fn exposed(_path: &Path) -> Option<Fault> {
    None
}

/// `~/.config/hithe/hithe.yml`, `~/Library/Application Support/hithe/hithe.yml` or `%APPDATA%\hithe\hithe.yml`.
pub fn default_path() -> Option<PathBuf> {
    let strategy = etcetera::base_strategy::choose_native_strategy().ok()?;
    // What Apple calls preferences are files of its own form.
    let base = if cfg!(target_vendor = "apple") { strategy.data_dir() } else { strategy.config_dir() };
    Some(base.join("hithe").join("hithe.yml"))
}

#[cfg(test)]
mod tests;
