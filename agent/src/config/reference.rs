//! The schema of the file and its reference, from the definitions that also read it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::keys::{self, Flag, Form, List};
use super::settings::{MEANINGLESS, RENAMED, Settings, Ssh};

/// The properties of [`Settings`] as schemars sees them, in the order of their definition.
static SETTINGS: LazyLock<Map<String, Value>> = LazyLock::new(properties::<Settings>);

fn properties<T: schemars::JsonSchema>() -> Map<String, Value> {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|it| it.inline_subschemas = true);
    let mut schema = SchemaGenerator::new(settings).into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    schema.get_mut("properties").and_then(Value::as_object_mut).map(std::mem::take).unwrap_or_default()
}

/// A default of nothing says nothing.
fn tidy(schema: &mut Value) {
    if let Some(object) = schema.as_object_mut() {
        object.retain(|key, value| key != "default" || !(value.is_null() || *value == json!({})));
        object.values_mut().for_each(tidy);
    }
}

pub(super) fn is_setting(key: &str) -> bool {
    SETTINGS.contains_key(key)
}

/// What may stand at the top of a file, or in version 3 also below `agent`.
pub(super) fn top_level(version: u8) -> Vec<String> {
    let mut names: Vec<_> = ["version", "tunnels"].map(str::to_owned).into();
    if version == 3 {
        names.extend(["agent", "endpoints"].map(str::to_owned));
    }
    names.extend(SETTINGS.keys().cloned());
    names.extend(MEANINGLESS.iter().chain(RENAMED).map(|(key, _)| (*key).to_owned()));
    names
}

/// The JSON schema of the file, for editors.
pub(super) fn schema() -> String {
    let settings = settings_schema();
    let object = |properties: Value, required: &[&str]| json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    let tunnels = json!({
        "type": ["object", "null"],
        "description": "What is published, by name",
        "additionalProperties": endpoint_schema(List::Tunnels, &["proto"]),
    });
    let endpoints = json!({
        "type": ["array", "null"],
        "description": "What is published",
        "items": endpoint_schema(List::Endpoints, &["name", "upstream"]),
    });
    let mut second = settings.clone();
    second.insert("version".to_owned(), json!({ "enum": [2, "2"] }));
    second.insert("tunnels".to_owned(), tunnels.clone());
    let third = json!({
        "version": { "enum": [3, "3"] },
        "agent": { "type": ["object", "null"], "properties": settings, "additionalProperties": false },
        "endpoints": endpoints,
        "tunnels": tunnels,
    });
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The file of the agent hithe",
        "if": { "properties": { "version": { "enum": [2, "2"] } } },
        "then": object(Value::Object(second), &["version"]),
        "else": object(third, &["version"]),
    });
    // Of values without keys that are no text: it cannot fail.
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

fn settings_schema() -> Map<String, Value> {
    let mut settings = SETTINGS.clone();
    for (then, now) in RENAMED {
        if let Some(value) = SETTINGS.get(*now) {
            settings.insert((*then).to_owned(), value.clone());
        }
    }
    for (key, why) in MEANINGLESS {
        let older = RENAMED.iter().filter(|(_, now)| now == key).map(|(then, _)| then);
        for key in older.chain([key]) {
            let said = sentence(why);
            settings.insert((*key).to_owned(), json!({ "description": said, "deprecated": true }));
        }
    }
    settings
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn endpoint_schema(list: List, required: &[&str]) -> Value {
    let mut properties = Map::new();
    for (path, help, flag) in keys::all(list) {
        let value = key_schema(&path, &help, flag);
        match path.split_once('.') {
            None => {
                properties.entry(path).or_insert(value);
            }
            Some((section, key)) => {
                // A key can be a value or a section: verify_webhook.
                let fresh =
                    || json!({ "type": ["object", "null"], "properties": {}, "additionalProperties": false });
                let entry = properties.entry(section).or_insert_with(fresh);
                if entry.get("properties").is_none() {
                    let description = entry.get("description").cloned();
                    *entry = fresh();
                    let types = json!(["object", "string", "null"]);
                    entry.as_object_mut().map(|it| it.insert("type".to_owned(), types));
                    if let (Some(text), Some(object)) = (description, entry.as_object_mut()) {
                        object.insert("description".to_owned(), text);
                    }
                }
                if let Some(inside) = entry.get_mut("properties").and_then(Value::as_object_mut) {
                    inside.insert(key.to_owned(), value);
                }
            }
        }
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn key_schema(path: &str, help: &str, flag: Option<&Flag>) -> Value {
    let scalar = json!(["string", "number", "boolean", "null"]);
    match (path, flag.map(|flag| flag.form)) {
        ("proto", _) => json!({ "description": help, "enum": ["http", "tls", "tcp"] }),
        ("bind_tls", _) => json!({ "description": help, "enum": [true, false, "both"] }),
        ("bindings", _) => json!({ "description": help, "type": "array", "items": { "const": "public" } }),
        (_, Some(Form::Switch)) => {
            json!({ "description": help, "type": ["boolean", "null"], "default": false })
        }
        (_, Some(Form::Boolean)) => {
            json!({ "description": help, "type": ["boolean", "null"], "default": true })
        }
        (_, Some(Form::Many)) => {
            let one = json!({ "type": ["string", "number"] });
            json!({ "description": help, "anyOf": [one, { "type": "array", "items": one }, { "type": "null" }] })
        }
        (_, Some(Form::One) | None) => json!({ "description": help, "type": scalar }),
    }
}

/// Markdown of every key, what it is for and what applies without it.
pub(super) fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("## The agent\n\nBelow `agent:` in version 3, at the top level in version 2.\n\n");
    page.push_str("| Key | Default | |\n|---|---|---|\n");
    for (key, value) in SETTINGS.iter() {
        add_setting(&mut page, key, value);
    }
    page.push_str("\nBelow `ssh:`, which ngrok's file has not:\n\n| Key | Default | |\n|---|---|---|\n");
    for (key, value) in &properties::<Ssh>() {
        add_setting(&mut page, &format!("ssh.{key}"), value);
    }
    page.push_str(NOTHING);
    for (key, why) in MEANINGLESS {
        let older = RENAMED.iter().find(|(_, now)| now == key);
        let older = older.map(|(then, _)| format!(", `{then}`")).unwrap_or_default();
        let _ = writeln!(page, "| `{key}`{older} | {} |", cell(&sentence(why)));
    }
    page.push_str(ENDPOINTS);
    let only_there = |path: &str| path.starts_with("upstream.") || path.starts_with("agent_tls_termination.");
    add_keys(&mut page, List::Endpoints, |path, flag| flag.is_none() || only_there(path));
    page.push_str(TUNNELS);
    add_keys(&mut page, List::Tunnels, |path, flag| flag.is_none() && !path.contains('.'));
    page.push_str(BOTH);
    add_keys(&mut page, List::Tunnels, |_, flag| flag.is_some());
    page.push_str(REFUSED);
    page
}

const INTRODUCTION: &str = "\
# The agent's file

Generated by `cargo dev generate`; do not edit.

`hithe` reads `~/.config/hithe/hithe.yml` (macOS: `~/Library/Application Support/hithe/hithe.yml`, Windows:
`%APPDATA%\\hithe\\hithe.yml`), or the files that `--config` names, the later over the earlier: mappings key by key, the
list `endpoints` by name, other lists as a whole. It has the form of an ngrok agent file of version 2 or 3, which works
as it is but for the address of the server (`connect_url`) and the token. A key that is not known is refused with its
line.
`hithe config check` says what the file would publish, `hithe config upgrade` makes version 3 of version 2, and
`hithe config schema` prints the [schema](agent-config.schema.json) for editors. A file has up to 1 MiB.

```yaml
version: 3
agent:
  connect_url: tunnel.example.com
endpoints:
  - name: web
    url: https://app
    upstream:
      url: 8080
    basic_auth:
      - ada:correct-horse
  - name: shell
    url: tcp://
    upstream:
      url: 22
```

The same in version 2:

```yaml
version: 2
server_addr: tunnel.example.com
tunnels:
  web:
    proto: http
    addr: 8080
    domain: app
    basic_auth:
      - ada:correct-horse
  shell:
    proto: tcp
    addr: 22
```

";

const NOTHING: &str = "
## Keys of ngrok that mean nothing here

They are accepted, and the agent says so once.

| Key | |
|---|---|
";

const ENDPOINTS: &str = "
## Endpoints

Version 3: each entry of the list `endpoints`. A dot stands for a section: `upstream.url` is `url:` below `upstream:`.

| Key | For | |
|---|---|---|
";

const TUNNELS: &str = "
## Tunnels

Both versions: each entry of the mapping `tunnels`, whose key is its name.

| Key | For | |
|---|---|---|
";

const BOTH: &str = "
## Keys of endpoints and tunnels

Those of the command line, with underscores; [modules.md](modules.md) says more of most. Where a value is one of several,
a list may stand. Certificates and keys are files (`~/` is the home directory; other paths begin where the agent is
started), or PEM in the file itself.

| Key | For | |
|---|---|---|
";

const REFUSED: &str = "
## Keys that are refused

`oauth`, `oidc`, `saml`, `policy`, `policy_file`, `traffic_policy`, `traffic_policy_file`, `traffic_policy_url` and `labels`
protect an endpoint at ngrok, or say where it is, in ways that this server has not. Ignoring them would let in more
visitors than the file asks for, so that the agent refuses them and says what there is instead. `bindings` is `public`
or nothing.
";

fn add_setting(page: &mut String, key: &str, value: &Value) {
    let help = value.get("description").and_then(Value::as_str).unwrap_or_default();
    let default = match value.get("default") {
        Some(Value::String(text)) => format!("`{text}`"),
        Some(Value::Array(list)) if list.is_empty() => String::new(),
        Some(value) => format!("`{value}`"),
        None => String::new(),
    };
    let choices = value.get("enum").or_else(|| value.pointer("/anyOf/0/enum")).and_then(Value::as_array);
    // One that is no text has been told in the help.
    let choices: Option<Vec<_>> = choices.into_iter().flatten().map(Value::as_str).collect();
    let choices = choices.unwrap_or_default();
    let choices = if choices.is_empty() { String::new() } else { format!(": {}", choices.join(", ")) };
    let _ = writeln!(page, "| `{key}` | {} | {} |", cell(&default), cell(&format!("{help}{choices}")));
}

fn add_keys(page: &mut String, list: List, wanted: impl Fn(&str, Option<&Flag>) -> bool) {
    let mut shown = BTreeMap::new();
    for (path, help, flag) in keys::all(list) {
        if !wanted(&path, flag) || shown.insert(path.clone(), ()).is_some() {
            continue;
        }
        let kinds: Vec<_> = flag.into_iter().flat_map(|it| &it.kinds).map(|it| it.as_str()).collect();
        let _ = writeln!(page, "| `{path}` | {} | {} |", kinds.join(", "), cell(&help));
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
