//! Faults of a simulator's API calls: which calls get one, how often, and what happens on their connections.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};

use serde::{Deserialize, Serialize};

use crate::connections::{Cut, Switch};

/// A fault of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fault {
    /// Refused with this status and the API's own body; the call is not performed.
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// An HTML page as from a load balancer; the call is not performed.
    Html {
        /// The HTTP status.
        status: u16,
    },
    /// The call is performed, then the client gets a load balancer's page.
    HtmlAfter {
        /// The HTTP status.
        status: u16,
    },
    /// The connection is closed before the call is performed.
    DropBefore,
    /// The call is performed, then the connection is closed without a response.
    DropAfter,
    /// The call is performed, then the connection is reset.
    ResetAfter,
    /// The connection is closed without a response, and the call is performed this much later.
    Late {
        /// Milliseconds.
        ms: u64,
    },
    /// The call is delayed by this much and then performed normally.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// The call is performed, and its response is delayed by this much.
    SlowAnswer {
        /// Milliseconds.
        ms: u64,
    },
}

impl Fault {
    /// How long the call is delayed before it is performed.
    pub(crate) fn delay(self) -> Option<Duration> {
        match self {
            Self::Delay { ms } => Some(Duration::from_millis(ms)),
            _ => None,
        }
    }
}

struct ArmedFault {
    route: String,
    fault: Fault,
    times: u32,
}

/// The armed faults, which wait for a call.
#[derive(Default)]
pub(crate) struct CallFaults(Mutex<Vec<ArmedFault>>);

impl CallFaults {
    fn plans(&self) -> MutexGuard<'_, Vec<ArmedFault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms a fault for the next `times` calls of a route, or of all with `*`.
    pub(crate) fn next(&self, route: &str, fault: Fault, times: u32) {
        self.plans().push(ArmedFault {
            route: route.to_owned(),
            fault,
            times,
        });
    }

    pub(crate) fn clear(&self) {
        self.plans().clear();
    }

    pub(crate) fn take(&self, route: &str) -> Option<Fault> {
        let mut plans = self.plans();
        let here = |plan: &&mut ArmedFault| plan.route == "*" || plan.route == route;
        let plan = plans.iter_mut().find(here)?;
        plan.times = plan.times.saturating_sub(1);
        let fault = plan.fault;
        plans.retain(|plan| plan.times > 0);
        Some(fault)
    }
}

/// An error page of a reverse proxy.
fn page(status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    (status, Html(format!("<html><h1>{status}</h1></html>\r\n"))).into_response()
}

/// The response to a call that the fault does not let through; `None` if it is let through. `refusal` makes an error
/// response of the simulated API.
pub(crate) async fn before(
    switch: &Switch,
    fault: Option<Fault>,
    refusal: impl FnOnce(StatusCode) -> Response,
) -> Option<Response> {
    match fault? {
        Fault::Status { status } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Some(refusal(status))
        }
        Fault::Html { status } => Some(page(status)),
        Fault::DropBefore => {
            switch.cut(Cut::Close);
            // Never sent, because the connection is cut.
            Some(StatusCode::NO_CONTENT.into_response())
        }
        Fault::Delay { ms } => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            None
        }
        _ => None,
    }
}

/// Applies the fault to the response of a call that was let through.
pub(crate) async fn after(switch: &Switch, fault: Option<Fault>, response: Response) -> Response {
    match fault {
        Some(Fault::HtmlAfter { status }) => return page(status),
        Some(Fault::DropAfter) => switch.cut(Cut::Close),
        Some(Fault::ResetAfter) => switch.cut(Cut::Reset),
        Some(Fault::SlowAnswer { ms }) => tokio::time::sleep(Duration::from_millis(ms)).await,
        _ => {}
    }
    response
}
