//! From the keys of a tunnel or endpoint to the words that a command line would have for it.

use hithe_cli_parser::{CommandError, Kind};

use super::decode::not_known;
use super::keys::{
    Flag, Form, List, Meaning, ONLY_PUBLIC, in_words_of_keys, is_section, meaning, names_within,
};
use super::tree::{Entry, Node, Position, Value, at_home};
use super::{Fault, Faults};
use crate::Upstream;
use crate::endpoint::{Endpoint, EndpointError, KEY_LEAVES, command, no_file};

/// The endpoint that an entry of `tunnels:` or of the list `endpoints:` asks for.
pub(super) fn endpoint(
    entry: &Entry,
    list: List,
    notes: &mut Faults,
    faults: &mut Faults,
) -> Option<Endpoint> {
    let place = if list == List::Tunnels { "tunnels" } else { "endpoints" };
    let mut words = Words { base: format!("{place}.{}", entry.key), list, ..Words::default() };
    let before = faults.len();
    match entry.node.map(&words.base) {
        Ok(map) => words.take_all(map, "", faults),
        Err(fault) => {
            faults.push(fault);
            return None;
        }
    }
    let settled = words.settle(entry);
    // Which flags take what is the same for all.
    let kind = settled.as_ref().map_or(Kind::Http, |kind| *kind);
    faults.extend(settled.err().flatten());
    if faults.len() == before {
        match Endpoint::from_words(&entry.key, kind, words.line(&entry.key)) {
            Ok(endpoint) => {
                notes.extend(words.key_that_leaves(&endpoint));
                notes.extend(words.certificate_of_others(&endpoint));
                return Some(endpoint);
            }
            Err(error) => {
                words.check_each(kind, faults);
                if faults.len() == before {
                    faults.push(words.fault(&error, kind, entry));
                }
            }
        }
    } else {
        words.check_each(kind, faults);
    }
    None
}

/// What has been gathered of one endpoint.
#[derive(Debug)]
struct Words {
    /// `tunnels.web`
    base: String,
    list: List,
    said: Vec<Said>,
    /// Of `proto`, or of the scheme in `url`.
    kind: Option<Kind>,
    address: Option<(String, Position)>,
    url: Option<(String, Position)>,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            base: String::new(),
            list: List::Tunnels,
            said: Vec::new(),
            kind: None,
            address: None,
            url: None,
        }
    }
}

/// A word, and which key says it.
struct Said {
    flag: String,
    value: Option<String>,
    path: String,
    position: Position,
}

impl Said {
    fn word(&self) -> String {
        match &self.value {
            Some(value) => format!("--{}={value}", self.flag),
            None => format!("--{}", self.flag),
        }
    }
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "--{}", self.flag)
    }
}

impl Words {
    fn take_all(&mut self, map: &[Entry], section: &str, faults: &mut Faults) {
        for entry in map {
            let path =
                if section.is_empty() { entry.key.clone() } else { format!("{section}.{}", entry.key) };
            if let Err(fault) = self.take(entry, &path, section, faults) {
                faults.push(fault);
            }
        }
    }

    fn take(&mut self, entry: &Entry, path: &str, section: &str, faults: &mut Faults) -> Result<(), Fault> {
        let shown = format!("{}.{path}", self.base);
        if let Value::Map(map) = &entry.node.value
            && is_section(path, self.list)
        {
            self.take_all(map, path, faults);
            if path == "agent_tls_termination" && !map.is_empty() {
                self.say("terminate-at", Some("agent".to_owned()), path, &entry.position);
            }
            return Ok(());
        }
        match meaning(path, self.list) {
            _ if entry.node.is_null() && is_section(path, self.list) => Ok(()),
            None if is_section(path, self.list) => entry.node.map(&shown).map(drop),
            None => {
                let names = names_within(section, self.list);
                let message = not_known(&entry.key, names.iter().map(String::as_str));
                Err(Fault::at(&entry.position, &shown, message))
            }
            Some(Meaning::Elsewhere(advice)) => Err(Fault::at(&entry.position, &shown, advice)),
            Some(Meaning::Refused(_)) if entry.node.is_empty() => Ok(()),
            Some(Meaning::Refused(why)) => Err(Fault::at(&entry.position, &shown, in_words_of_keys(why))),
            _ if entry.node.is_null() => Ok(()),
            Some(Meaning::Own) => self.take_own(&entry.node, path, &shown),
            Some(Meaning::Flag(flag)) => self.take_flag(flag, &entry.node, path, &shown),
        }
    }

    fn take_own(&mut self, node: &Node, path: &str, shown: &str) -> Result<(), Fault> {
        match path {
            "bindings" => {
                for binding in node.list() {
                    if binding.text(shown)? != "public" {
                        return Err(binding.fault(shown, ONLY_PUBLIC));
                    }
                }
                return Ok(());
            }
            "bind_tls" => {
                let schemes = match (node.text(shown)?, node.boolean(shown)) {
                    ("both", _) => "http,https",
                    (_, Ok(true)) => "https",
                    (_, Ok(false)) => "http",
                    _ => return Err(node.fault(shown, "true, false or both belongs here")),
                };
                self.say("schemes", Some(schemes.to_owned()), path, &node.position);
                return Ok(());
            }
            _ => {}
        }
        let text = node.text(shown)?.to_owned();
        match path {
            "proto" => {
                let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
                self.kind =
                    Some(kind.ok_or_else(|| node.fault(shown, "one of http, tls, tcp belongs here"))?);
            }
            "addr" | "upstream.url" => self.address = Some((text, node.position.clone())),
            "url" => self.url = Some((text, node.position.clone())),
            // The name is known already.
            _ => {}
        }
        Ok(())
    }

    fn take_flag(&mut self, flag: &Flag, node: &Node, path: &str, shown: &str) -> Result<(), Fault> {
        match flag.form {
            Form::Switch => {
                if node.boolean(shown)? {
                    self.say(&flag.name, None, path, &node.position);
                }
            }
            Form::Boolean => {
                let value = node.boolean(shown)?.to_string();
                self.say(&flag.name, Some(value), path, &node.position);
            }
            Form::One => self.say_value(flag, node, path, shown)?,
            Form::Many => {
                for node in node.list() {
                    self.say_value(flag, node, path, shown)?;
                }
            }
        }
        Ok(())
    }

    fn say_value(&mut self, flag: &Flag, node: &Node, path: &str, shown: &str) -> Result<(), Fault> {
        let text = node.text(shown)?;
        let text = match text.strip_prefix("~/").filter(|_| flag.is_file) {
            Some(_) => at_home(text).to_string_lossy().into_owned(),
            None => text.to_owned(),
        };
        if text.contains('\0') {
            return Err(node.fault(shown, "a text has no NUL"));
        }
        self.say(&flag.name, Some(text), path, &node.position);
        Ok(())
    }

    fn say(&mut self, flag: &str, value: Option<String>, path: &str, position: &Position) {
        self.said.push(Said {
            flag: flag.to_owned(),
            value,
            path: path.to_owned(),
            position: position.clone(),
        });
    }

    /// Which kind of endpoint it is, and what its URL says besides. An error is none where what is wrong has been said.
    fn settle(&mut self, entry: &Entry) -> Result<Kind, Option<Fault>> {
        let needs = |key: &str, example: &str| {
            let path = format!("{}.{key}", self.base);
            Fault::at(&entry.position, &path, format!("missing: {example}"))
        };
        if self.list == List::Tunnels {
            let is_there = entry.node.get("proto").is_some();
            let missing = || (!is_there).then(|| needs("proto", "say proto: http, tls or tcp"));
            return self.kind.ok_or_else(missing);
        }
        if self.address.is_none() {
            let is_there =
                |it: &Node| it.get("url").is_some() || !matches!(it.value, Value::Map(_) | Value::Null);
            let is_there = entry.node.get("upstream").is_some_and(is_there);
            let missing = || needs("upstream.url", "say where it leads, as in upstream: {url: 8080}");
            return Err((!is_there).then(missing));
        }
        let Some((url, position)) = self.url.take() else { return Ok(Kind::Http) };
        self.settle_url(&url, &position).map_err(Some)
    }

    /// What is wrong of each value by itself.
    fn check_each(&self, kind: Kind, faults: &mut Faults) {
        let mut grammar = command(kind).no_binary_name(true);
        for said in &self.said {
            if let Err(error) = grammar.try_get_matches_from_mut([said.word()]) {
                let error = hithe_cli_parser::explain(kind, &error).into();
                faults.push(self.fault_at(&error, &said.path, &said.position));
            }
        }
        if let Some((address, position)) = &self.address
            && let Err(error) = Upstream::parse(address, kind)
        {
            faults.push(self.fault_at(&error.into(), self.address_key(), position));
        }
    }

    /// In the words that a command line would have for it.
    fn settle_url(&mut self, url: &str, position: &Position) -> Result<Kind, Fault> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let kind = match scheme {
            "http" | "https" => Kind::Http,
            "tls" => Kind::Tls,
            "tcp" => Kind::Tcp,
            _ => {
                let message = "a name belongs here, or a URL of http, https, tls or tcp";
                return Err(Fault::at(position, &format!("{}.url", self.base), message));
            }
        };
        if scheme == "http" && !self.said.iter().any(|it| it.flag == "schemes") {
            self.say("schemes", Some("http".to_owned()), "url", position);
        }
        let usual = if scheme == "http" { ":80" } else { ":443" };
        let (flag, value) = match kind {
            _ if rest.is_empty() => return Ok(kind),
            Kind::Tcp => ("remote-addr", rest),
            Kind::Http | Kind::Tls => match rest.strip_suffix(usual).unwrap_or(rest) {
                name if name.contains([':', '/']) => ("url", url),
                name => ("domain", name),
            },
        };
        self.say(flag, Some(value.to_owned()), "url", position);
        Ok(kind)
    }

    /// ngrok's agent ends TLS where these keys stand. Here the server does, unless the file says otherwise, and somebody who
    /// brings such a file should know.
    fn key_that_leaves(&self, endpoint: &Endpoint) -> Option<Fault> {
        let key = self.said.iter().find(|it| it.flag == "key")?;
        let path = format!("{}.{}", self.base, key.path);
        let leaves = self.list == List::Tunnels && endpoint.gives_key_away();
        leaves.then(|| Fault::at(&key.position, &path, format!("{KEY_LEAVES} {KEY_STAYS}")))
    }

    fn certificate_of_others(&self, endpoint: &Endpoint) -> Option<Fault> {
        let why = endpoint.certificate_of_others()?;
        let said = self.said.iter().find(|it| it.flag == "crt")?;
        Some(Fault::at(&said.position, &format!("{}.{}", self.base, said.path), in_words_of_keys(&why)))
    }

    /// The words behind `http`, `tls` or `tcp`.
    fn line(&self, name: &str) -> Vec<String> {
        let mut words = vec![format!("--name={name}")];
        words.extend(self.said.iter().map(Said::word));
        if let Some((address, _)) = &self.address {
            words.extend(["--".to_owned(), address.clone()]);
        }
        words
    }

    fn fault(&self, error: &EndpointError, kind: Kind, entry: &Entry) -> Fault {
        let about_address = matches!(error, EndpointError::Address(_));
        let at = match &self.address {
            Some((_, position)) if about_address => Some((self.address_key(), position)),
            _ => self.named_in(error, kind).map(|said| (said.path.as_str(), &said.position)),
        };
        match at {
            Some((path, position)) => self.fault_at(error, path, position),
            None => self.fault_at(error, "", &entry.position),
        }
    }

    fn fault_at(&self, error: &EndpointError, path: &str, position: &Position) -> Fault {
        let message = message_of(error);
        let message = message.split(": hithe ").next().unwrap_or(&message);
        let message = in_words_of_keys(message).replace("ADDR", self.address_key());
        let dot = if path.is_empty() { "" } else { "." };
        Fault::at(position, &format!("{}{dot}{path}", self.base), message)
    }

    const fn address_key(&self) -> &'static str {
        match self.list {
            List::Tunnels => "addr",
            List::Endpoints => "upstream.url",
        }
    }

    /// The key whose flag an error is about; of several values the one that is wrong by itself.
    fn named_in(&self, error: &EndpointError, kind: Kind) -> Option<&Said> {
        let of = |word: &str| {
            let name = word.strip_prefix("--")?;
            let mut all = self.said.iter().filter(|said| said.flag == name);
            let alone = |said: &&Said| {
                let alone = Endpoint::from_words("", kind, [said.word()]);
                alone.is_err_and(|alone| alone.to_string() == error.to_string())
            };
            all.clone().find(alone).or_else(|| all.next())
        };
        let word = match error {
            EndpointError::Command(error) => error.offending_word(),
            EndpointError::NoFile { flag, name } => {
                let it = |said: &&Said| {
                    Some(said.flag.as_str()) == flag.strip_prefix("--") && said.value.as_ref() == Some(name)
                };
                return self.said.iter().find(it);
            }
            EndpointError::Address(_) | EndpointError::Together(_) => None,
        };
        let message = message_of(error);
        let clean = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
        word.and_then(of).or_else(|| message.split(clean).find_map(of))
    }
}

const KEY_STAYS: &str = "To keep it on this machine, say terminate_at: agent (in version 3: agent_tls_termination with \
                         server_certificate and server_private_key); if the server is meant, terminate_at: edge";

/// Its place is told beside it.
fn message_of(error: &EndpointError) -> String {
    match error {
        EndpointError::Command(error) => of_command(error),
        EndpointError::NoFile { name, .. } => no_file(name),
        EndpointError::Address(_) | EndpointError::Together(_) => error.to_string(),
    }
}

/// Without the advice that is for a command line.
fn of_command(error: &CommandError) -> String {
    let mut text = format!("{}: {}", error.code(), error.message());
    let for_lines = |hint: &&str| !hint.contains("ssh ") && !hint.contains("-R") && !hint.contains("--help");
    if let Some(hint) = error.advice().filter(for_lines) {
        text.push_str("; ");
        text.push_str(hint);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::Config;

    #[test]
    fn a_key_that_would_go_to_the_server_is_told_unless_the_file_says_where_tls_ends() {
        let pair = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (crt, key) = (folder.path().join("crt.pem"), folder.path().join("key.pem"));
        std::fs::write(&crt, pair.cert.pem()).unwrap();
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        let notes = |more: &str| {
            let (crt, key) = (crt.display(), key.display());
            let text = format!(
                "version: 2\ntunnels:\n  app:\n    proto: tls\n    addr: 80\n    crt: {crt}\n    key: {key}\n{more}"
            );
            let config = Config::of(&[(PathBuf::from("a.yml"), text.into_bytes())]).unwrap();
            config.notes.iter().map(ToString::to_string).collect::<String>()
        };
        let said = notes("");
        assert!(
            said.starts_with("a.yml:7:10: tunnels.app.key: this private key is SENT TO THE SERVER"),
            "{said}"
        );
        assert!(said.contains("terminate_at: agent") && said.contains("agent_tls_termination"), "{said}");
        assert_eq!(notes("    terminate_at: agent\n"), "");
        assert_eq!(notes("    terminate_at: edge\n"), "");
    }
}
