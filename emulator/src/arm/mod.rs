//! Azure Resource Manager: role assignments and definitions, deny assignments, managed clusters, fleets, and
//! the tree they are in.
//!
//! Every call passes the same gates, in ARM's order: token, address, api-version, budget, existence of the
//! subscription, authorisation; then its own handler.

mod deny_assignments;
mod error;
mod fleets;
mod gate;
mod managed_clusters;
mod paging;
mod resources;
mod role_assignments;
mod role_definitions;
mod route;
mod throttle;

use hyper::{Method, StatusCode};
use uuid::Uuid;

pub(crate) use throttle::Throttle;

use crate::core::Core;
use crate::message::{Answer, Request};
use crate::operation::Operation;
use crate::time::Moment;
use error::ArmError;
use route::Target;

/// What a call to ARM asks for.
pub(crate) fn operation(method: &Method, path: &str) -> Operation {
    route::parse(path).map_or(Operation::Unknown, |target| target.operation(method))
}

/// A call that has passed the gates.
struct Admitted<'a> {
    core: &'a Core,
    request: &'a Request,
    /// The caller's object id.
    caller: Uuid,
    now: Moment,
}

pub(crate) fn handle(core: &Core, request: &Request) -> Answer {
    let mut allowance = throttle::Allowance::default();
    let answer = answer(core, request, &mut allowance).unwrap_or_else(|error| error.answer());
    with_headers(allowance.onto(answer), request)
}

/// The error that a fault wants, as ARM would write it.
pub(crate) fn fault(request: &Request, status: StatusCode, code: &str, message: &str) -> Answer {
    with_headers(
        ArmError::new(status, code, message.to_owned()).answer(),
        request,
    )
}

/// Whether the role assignment that a request is about was written less than `within` ago: only then can a
/// replica that trails by so much not have seen it.
pub(crate) fn was_written_within(
    core: &Core,
    request: &Request,
    within: std::time::Duration,
) -> bool {
    let name = request.path.rsplit('/').next().unwrap_or_default();
    let Ok(name) = uuid::Uuid::try_parse(name) else {
        return false;
    };
    let written = core
        .store()
        .state
        .role_assignment(name)
        .map(|found| found.updated_on);
    written.is_some_and(|written| {
        jiff::Timestamp::now()
            .duration_since(written)
            .unsigned_abs()
            < within
    })
}

/// What a replica answers that has not seen the PUT.
pub(crate) fn no_content(request: &Request) -> Answer {
    with_headers(Answer::empty(StatusCode::NO_CONTENT), request)
}

fn answer(
    core: &Core,
    request: &Request,
    allowance: &mut throttle::Allowance,
) -> Result<Answer, ArmError> {
    let claims = gate::authenticate(core, request)?;
    let target =
        route::parse(&request.path).ok_or_else(|| ArmError::no_such_address(&request.path))?;
    if request.operation == Operation::Unknown {
        return Err(ArmError::method_not_allowed(&request.method));
    }
    gate::check_api_version(request, &target)?;
    let now = core.clock.now();
    *allowance = core.throttle.take(
        &core.settings().throttling,
        request,
        &target,
        claims.oid,
        now,
    )?;
    gate::authorize(core, request, &target, claims)?;
    let call = Admitted {
        core,
        request,
        caller: claims.oid,
        now,
    };
    match &target {
        Target::RoleAssignment { scope, name } => role_assignments::one(&call, scope, name),
        Target::RoleAssignments { scope } => role_assignments::list(&call, scope),
        Target::DenyAssignments { scope } => deny_assignments::list(&call, scope),
        Target::RoleDefinition { scope, id } => role_definitions::one(&call, scope, id),
        Target::RoleDefinitions { scope } => role_definitions::list(&call, scope),
        Target::Cluster { id } => managed_clusters::one(&call, id),
        Target::Clusters { subscription } => managed_clusters::list(&call, subscription),
        Target::Fleets { subscription } => fleets::list(&call, subscription),
        Target::FleetMembers { fleet } => fleets::members(&call, fleet),
        Target::Subscription { id } => resources::subscription(&call, id),
        Target::Subscriptions => Ok(resources::subscriptions(&call)),
        Target::ResourceGroup { id } => resources::resource_group(&call, id),
        Target::ResourceGroups { subscription } => {
            Ok(resources::resource_groups(&call, subscription))
        }
        Target::ManagementGroup { id } => resources::management_group(&call, id),
    }
}

/// The headers of the recorded answers that anybody could depend on [role-assignments.txt].
fn with_headers(mut answer: Answer, request: &Request) -> Answer {
    for (name, value) in [
        ("cache-control", "no-cache"),
        ("expires", "-1"),
        ("pragma", "no-cache"),
        (
            "strict-transport-security",
            "max-age=31536000; includeSubDomains",
        ),
        ("x-content-type-options", "nosniff"),
        ("x-cache", "CONFIG_NOCACHE"),
    ] {
        answer.set(name, value);
    }
    let id = Uuid::new_v4().to_string();
    answer.set("x-ms-request-id", &id);
    let correlation = request
        .header("x-ms-correlation-request-id")
        .map_or_else(|| id.clone(), str::to_owned);
    answer.set("x-ms-correlation-request-id", &correlation);
    let routed = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    answer.set(
        "x-ms-routing-request-id",
        &format!("EMULATOR:{routed}:{id}"),
    );
    if let Some(id) = request.header("x-ms-client-request-id") {
        let id = id.to_owned();
        answer.set("x-ms-client-request-id", &id);
    }
    answer
}
