//! Where the built programs are. Each is built once for each test process, with the profile and the target
//! directory of the test that runs, so that a plain `cargo test` works in a clean clone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of `hithed`, freshly built.
pub fn hithed() -> &'static Path {
    try_hithed().unwrap_or_else(|error| panic!("{error}"))
}

/// The same, or why it could not be built.
pub fn try_hithed() -> Result<&'static Path, &'static str> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    path(BUILT.get_or_init(|| build("hithed", &Profile::running())))
}

/// The path of the agent `hithe`, freshly built.
pub fn hithe() -> &'static Path {
    try_hithe().unwrap_or_else(|error| panic!("{error}"))
}

/// The same, or why it could not be built.
pub fn try_hithe() -> Result<&'static Path, &'static str> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    path(BUILT.get_or_init(|| build("hithe", &Profile::running())))
}

/// The path of `hithed` with optimisations, for benchmarks, or why it could not be built.
pub fn try_hithed_release() -> Result<&'static Path, &'static str> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    path(BUILT.get_or_init(|| build("hithed", &Profile::release())))
}

/// The same of the agent `hithe`.
pub fn try_hithe_release() -> Result<&'static Path, &'static str> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    path(BUILT.get_or_init(|| build("hithe", &Profile::release())))
}

/// The target directory in which the running program was built.
pub(crate) fn target() -> PathBuf {
    Profile::running().target
}

/// A failed build is kept too: every test fails with it, and only the first waits for cargo.
fn path(built: &'static Result<PathBuf, String>) -> Result<&'static Path, &'static str> {
    built.as_deref().map_err(String::as_str)
}

/// Where the running program was built: `TARGET/FOLDER/[deps/]PROGRAM`.
struct Profile {
    target: PathBuf,
    folder: String,
}

impl Profile {
    fn running() -> Self {
        let program = std::env::current_exe().expect("the path of this program");
        let mut folder = program.parent().expect("a program stands in a folder");
        if folder.ends_with("deps") {
            folder = folder.parent().expect("deps stands in a profile's folder");
        }
        let name = folder.file_name().expect("a profile's folder has a name").to_string_lossy().into_owned();
        Self { target: folder.parent().expect("a target directory").to_owned(), folder: name }
    }

    fn release() -> Self {
        Self { folder: "release".into(), ..Self::running() }
    }

    /// The name that `cargo --profile` knows it by.
    fn name(&self) -> &str {
        if self.folder == "debug" { "dev" } else { &self.folder }
    }
}

/// Builds one program as part of the whole workspace, so that its dependencies have the same features as in
/// `cargo test --workspace` and are not compiled a second time.
fn build(program: &str, profile: &Profile) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--workspace", "--bin", program, "--profile", profile.name()]);
    command.arg("--target-dir").arg(&profile.target).current_dir(repository());
    // What cargo tells this test about its own package would look like a change to build scripts.
    for (name, _) in std::env::vars_os().filter(|(name, _)| tells_of_a_package(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    match command.status() {
        Ok(status) if status.success() => Ok(profile.target.join(&profile.folder).join(program)),
        Ok(status) => Err(format!("cargo could not build {program}: {status}")),
        Err(error) => Err(format!("cannot start cargo to build {program}: {error}")),
    }
}

fn tells_of_a_package(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// The root of this repository, as it stood when the harness was built.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("integration/ stands in the repository")
}
