//! `hithe config upgrade`: version 3 from version 2.

use std::path::Path;

use super::emit::{Comments, Emitter};
use super::settings::RENAMED;
use super::tree::{self, Entry, Node, Value};
use super::{Config, ConfigError, Fault, Position};

/// A file of version 3, and how many comments found no place in it.
#[derive(Debug)]
pub(super) struct Upgraded {
    pub(super) text: String,
    pub(super) comments_lost: usize,
}

/// The same file in version 3. None if it is that already.
///
/// # Errors
/// The file is wrong as it is, or would not publish the same afterwards.
pub(super) fn upgrade(file: &Path, bytes: &[u8]) -> Result<Option<Upgraded>, ConfigError> {
    let path = file.to_path_buf();
    let before = Config::of(&[(path.clone(), bytes.to_vec())])?;
    let root = tree::parse(file, bytes)?;
    if root.is_null() || super::version(&root)? == 3 {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(bytes);
    let mut emitter = Emitter::new(Comments::of(&text));
    emitter.map(&third(root.map("")?, &root.position), 0, false);
    let after = Config::of(&[(path, emitter.text.clone().into_bytes())])?;
    if after.settings != before.settings || after.endpoints != before.endpoints {
        let message = "version 3 of this file would not publish the same; please write it by hand (docs/agent-config.md)";
        return Err(Fault::at(&root.position, "", message).into());
    }
    Ok(Some(Upgraded { comments_lost: emitter.comments.left(), text: emitter.text }))
}

/// The keys of version 3 with what stood in those of version 2.
fn third(root: &[Entry], position: &Position) -> Vec<Entry> {
    let mut settings = Vec::new();
    let mut endpoints = Vec::new();
    let mut whole = Vec::new();
    for entry in root {
        match entry.key.as_str() {
            "version" => whole.push(Entry { node: text("3", &entry.node.position), ..entry.clone() }),
            "tunnels" => endpoints.push(entry),
            _ => settings.push(renamed(entry)),
        }
    }
    if !settings.is_empty() {
        whole.push(made("agent", Value::Map(settings), position));
    }
    for entry in endpoints {
        let Value::Map(tunnels) = &entry.node.value else { continue };
        let list = tunnels.iter().map(endpoint).collect();
        let node = Node { value: Value::List(list), position: entry.node.position.clone() };
        whole.push(Entry { key: "endpoints".to_owned(), position: entry.position.clone(), node });
    }
    whole
}

fn renamed(entry: &Entry) -> Entry {
    let now = RENAMED.iter().find(|(then, _)| *then == entry.key).map_or(entry.key.as_str(), |it| it.1);
    Entry { key: now.to_owned(), ..entry.clone() }
}

/// Something that the file has not said in these words; its line is nobody's, so that it takes no comments along.
fn made(key: &str, value: Value, position: &Position) -> Entry {
    let position = Position { line: 0, ..position.clone() };
    Entry { key: key.to_owned(), position: position.clone(), node: Node { value, position } }
}

fn text(text: &str, position: &Position) -> Node {
    Node { value: Value::Text(text.to_owned()), position: position.clone() }
}

/// A tunnel as an entry of the list.
fn endpoint(tunnel: &Entry) -> Node {
    let position = &tunnel.node.position;
    let said = |key: &str| tunnel.node.get(key).and_then(|node| node.text("").ok());
    let mut map = vec![Entry {
        key: "name".to_owned(),
        position: tunnel.position.clone(),
        node: text(&tunnel.key, position),
    }];
    let (url, spoken) = url(&said, &tunnel.node);
    map.push(made("url", Value::Text(url), position));
    let mut upstream = Vec::new();
    let mut termination = Vec::new();
    let mut rest = Vec::new();
    let at_agent = said("terminate_at") == Some("agent");
    for entry in tunnel.node.map("").unwrap_or_default() {
        let put = |key: &str| Entry { key: key.to_owned(), ..entry.clone() };
        match entry.key.as_str() {
            "addr" => upstream.push(put("url")),
            "app_protocol" | "upstream_protocol" => upstream.push(put("protocol")),
            "proxy_proto" | "upstream_proxy_protocol" => upstream.push(put("proxy_protocol")),
            "terminate_at" if at_agent => {}
            "crt" if at_agent => termination.push(put("server_certificate")),
            "key" if at_agent => termination.push(put("server_private_key")),
            "mutual_tls_cas" if at_agent => termination.push(put("mutual_tls_certificate_authorities")),
            "proto" => {}
            "bind_tls" if !spoken.contains(&"bind_tls") => {
                let schemes = if said("bind_tls") == Some("both") { "http,https" } else { "https" };
                rest.push(Entry { node: text(schemes, &entry.node.position), ..put("schemes") });
            }
            key if spoken.contains(&key) => {}
            _ => rest.push(entry.clone()),
        }
    }
    if !upstream.iter().any(|entry| entry.key == "url") {
        upstream.insert(0, made("url", Value::Text("80".to_owned()), position));
    }
    map.push(made("upstream", Value::Map(upstream), position));
    if !termination.is_empty() {
        map.push(made("agent_tls_termination", Value::Map(termination), position));
    }
    map.extend(rest);
    Node { value: Value::Map(map), position: position.clone() }
}

/// The URL of an endpoint, and the keys that it stands for.
fn url<'a>(said: &impl Fn(&str) -> Option<&'a str>, tunnel: &Node) -> (String, Vec<&'static str>) {
    let plain_only = ["schemes", "scheme"].iter().any(|key| {
        let list = tunnel.get(key).map(Node::list).unwrap_or_default();
        matches!(list, [only] if only.text("").is_ok_and(|it| it == "http"))
    });
    let mut spoken = Vec::new();
    let scheme = match said("proto") {
        Some("tls") => "tls",
        Some("tcp") => "tcp",
        _ if plain_only => {
            spoken.extend(["schemes", "scheme"]);
            "http"
        }
        _ if said("bind_tls").and_then(tree::boolean) == Some(false) => {
            spoken.push("bind_tls");
            "http"
        }
        _ => "https",
    };
    let keys: &[&'static str] =
        if scheme == "tcp" { &["remote_addr"] } else { &["domain", "hostname", "subdomain"] };
    let mut place = String::new();
    for key in keys {
        if let Some(name) = said(key).filter(|it| place.is_empty() && !it.contains('/')) {
            name.clone_into(&mut place);
            spoken.push(key);
        }
    }
    (format!("{scheme}://{place}"), spoken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn third_of(text: &str) -> Upgraded {
        upgrade(Path::new("a.yml"), text.as_bytes()).unwrap().unwrap()
    }

    const BEFORE: &str = "\
# The file of Ada
version: \"2\"
# from the admin
server_addr: tunnel:22 # ours
root_cas: host
log_level: debug
# all that is published
tunnels:
  # the site
  site:
    proto: http
    addr: 8080 # dev server
    domain: app
    # who may come
    basic_auth:
      - ada:correct-horse # Ada
      # and her friend
      - 'bob:battery # staple'
    app_protocol: http2
    proxy_proto: 1
    ip_restriction: {allow_cidrs: [10.0.0.0/8]}
  plain: {proto: http, schemes: [http], hostname: b}
  both: {proto: http, schemes: [http, https], inspect: false}
  shell: {proto: tcp, addr: 22, remote_addr: 'h:20022'}
  pass: {proto: tls, addr: 443, subdomain: s}
  old: {proto: http, bind_tls: false}
  older: {proto: http, bind_tls: true}
# the end
";

    const AFTER: &str = "\
# The file of Ada
version: 3
agent:
  # from the admin
  connect_url: tunnel:22 # ours
  connect_cas: host
  log_level: debug
# all that is published
endpoints:
  # the site
  - name: site
    url: https://app
    upstream:
      url: 8080 # dev server
      protocol: http2
      proxy_protocol: 1
    # who may come
    basic_auth:
      - ada:correct-horse # Ada
      # and her friend
      - \"bob:battery # staple\"
    ip_restriction:
      allow_cidrs:
        - 10.0.0.0/8
  - name: plain
    url: http://b
    upstream:
      url: 80
  - name: both
    url: https://
    upstream:
      url: 80
    schemes:
      - http
      - https
    inspect: false
  - name: shell
    url: tcp://h:20022
    upstream:
      url: 22
  - name: pass
    url: tls://s
    upstream:
      url: 443
  - name: old
    url: http://
    upstream:
      url: 80
  - name: older
    url: https://
    upstream:
      url: 80
    schemes: https
";

    #[test]
    fn version_3_publishes_the_same_with_the_comments_in_their_places() {
        let upgraded = third_of(BEFORE);
        assert_eq!(upgraded.text, AFTER);
        assert_eq!(upgraded.comments_lost, 1);
    }

    #[test]
    fn every_key_of_a_tunnel_survives() {
        // That it publishes the same is checked by the upgrade itself.
        let upgraded = third_of(crate::config::tests::SECOND).text;
        assert!(
            upgraded.contains("url: tcp://tunnel.example.com:20022") && upgraded.contains("  - name: pass")
        );
    }

    #[test]
    fn what_is_version_3_already_or_wrong_is_not_touched() {
        assert!(upgrade(Path::new("a.yml"), b"version: 3\n").unwrap().is_none());
        assert!(upgrade(Path::new("a.yml"), b"").unwrap().is_none());
        let error = upgrade(Path::new("a.yml"), b"version: 2\ntunnels: {a: {proto: x}}\n").unwrap_err();
        assert!(error.to_string().contains("tunnels.a.proto"));
        let port = b"version: 2\ntunnels: {a: {proto: http, domain: 'app:443'}}\n";
        let error = upgrade(Path::new("a.yml"), port).unwrap_err().to_string();
        assert!(error.contains("would not publish the same"), "{error}");
    }

    #[test]
    fn tls_at_the_agent_gets_its_section() {
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (crt, key) = (write("crt", pair.cert.pem()), write("key", pair.signing_key.serialize_pem()));
        let inline: String = pair.cert.pem().lines().map(|line| format!("      {line}\n")).collect();
        let text = format!(
            "version: 2\ntunnels:\n  a:\n    proto: tls\n    addr: 80\n    terminate_at: agent\n    crt: {crt}\n    key: {key}\n    mutual_tls_cas: |\n{inline}"
        );
        let upgraded = third_of(&text).text;
        assert!(upgraded.contains("    agent_tls_termination:\n      server_certificate: "), "{upgraded}");
        assert!(
            upgraded.contains("      mutual_tls_certificate_authorities: |\n        -----BEGIN"),
            "{upgraded}"
        );
    }
}
