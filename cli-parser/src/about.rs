//! What a publisher notes about an endpoint for people and programs; it changes nothing for visitors.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{Code, CommandError};

/// Opaque to the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Notes")]
pub struct About {
    /// A name for the endpoint in lists and logs
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// What the endpoint is for, in up to 255 bytes
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Anything for programs, in up to 4096 bytes
    #[arg(long, value_name = "TEXT")]
    pub metadata: Option<String>,
}

const MAX_NAME: usize = 128;
const MAX_DESCRIPTION: usize = 255;
const MAX_METADATA: usize = 4096;

impl About {
    pub(crate) fn check(&self) -> Result<(), CommandError> {
        let bounds = [
            ("--name", &self.name, MAX_NAME, Code::BAD_FLAG),
            ("--description", &self.description, MAX_DESCRIPTION, Code::DESCRIPTION_LENGTH),
            ("--metadata", &self.metadata, MAX_METADATA, Code::METADATA_LENGTH),
        ];
        for (flag, value, most, code) in bounds {
            let length = value.as_ref().map_or(0, String::len);
            if length > most {
                let message = format!("{flag} takes {most} bytes at most, not {length}");
                return Err(CommandError::new(code, message).word(flag));
            }
        }
        Ok(())
    }

    pub(crate) fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        let said =
            [("--name", &self.name), ("--description", &self.description), ("--metadata", &self.metadata)];
        flags.extend(said.into_iter().filter(|(_, it)| it.is_some()).map(|(flag, it)| (flag, it.clone())));
    }
}
