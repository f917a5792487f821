//! What the inspector's page and API may ask of a running agent.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::{Agent, StartError};
use crate::config::{self, Settings};
use crate::inspect::{ApiError, BoxFuture, Local};
use crate::status::{EndpointStatus, Phase, Status};
use crate::upstream::Dialer;

/// An agent and how it was configured.
pub(crate) struct Served {
    agent: Arc<Agent>,
    configuration: Vec<(String, String)>,
}

impl Served {
    pub(crate) fn new(agent: Arc<Agent>, settings: &Settings) -> Self {
        Self { agent, configuration: settings.shown() }
    }
}

impl Local for Served {
    fn status(&self) -> Arc<Status> {
        Arc::new(self.agent.board.read())
    }

    fn configuration(&self) -> Vec<(String, String)> {
        self.configuration.clone()
    }

    fn dialer(&self, endpoint: &str) -> Option<Dialer> {
        self.agent.dialer(endpoint)
    }

    fn start(&self, fields: Value) -> BoxFuture<Result<EndpointStatus, ApiError>> {
        let agent = Arc::clone(&self.agent);
        Box::pin(async move {
            let endpoint = config::endpoint_of(fields).map_err(|error| ApiError::bad(error.to_string()))?;
            let name = endpoint.name.clone();
            agent.manage();
            agent.start(endpoint).map_err(|error| match error {
                StartError::Name(_) => ApiError::new(409, 102, error.to_string()),
                error => ApiError::bad(error.to_string()),
            })?;
            timeout(PUBLIC, becomes_public(&agent, &name)).await.unwrap_or_else(|_| {
                let message = "the server has not answered yet; the endpoint goes on trying";
                Err(ApiError::new(504, 103, message))
            })
        })
    }

    fn stop(&self, endpoint: &str) -> BoxFuture<Result<(), ApiError>> {
        self.agent.manage();
        let stopped = self.agent.stop(endpoint);
        let missing = ApiError::new(404, 100, format!("there is no endpoint {endpoint}"));
        Box::pin(async move { if stopped { Ok(()) } else { Err(missing) } })
    }
}

async fn becomes_public(agent: &Agent, name: &str) -> Result<EndpointStatus, ApiError> {
    let gone = || ApiError::new(502, 103, "the endpoint was withdrawn");
    let mut watch = agent.board.watch();
    loop {
        let now = watch.borrow_and_update().endpoints.iter().find(|it| it.name == name).cloned();
        let now = now.ok_or_else(gone)?;
        match &now.phase {
            Phase::Online { .. } => return Ok(now),
            Phase::Ended { why } => {
                let refused = ApiError::new(502, 103, why.clone());
                agent.stop(name);
                return Err(refused);
            }
            Phase::Connecting | Phase::Waiting { .. } => {}
        }
        watch.changed().await.map_err(|_| gone())?;
    }
}

/// How long a caller waits for an address.
const PUBLIC: Duration = Duration::from_secs(30);
