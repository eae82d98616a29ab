//! Answers about access.

use crate::broker::check::{Asked, Checked};
use crate::broker::{AccessEntry, AccessPage, BrokerError, Named};
use crate::domain::access::{Principal, PrincipalType};
use crate::domain::evaluate::{Decision, Layer, Path};
use crate::domain::ids::ClusterId;
use crate::domain::reason::Reason;
use crate::grpc::proto;
use crate::grpc::status::Violation;

use super::cluster::finding;
use super::{principal, principal_type, timestamp};

/// An answer; with its reasons, where they were asked for.
pub(in crate::grpc) fn answer(asked: &Asked, checked: &Checked) -> proto::CheckAccessResponse {
    let alone = |layer: Decision| proto::Layer {
        decision: decision(layer).into(),
        ..proto::Layer::default()
    };
    let explained = |layer: &Layer| explained_layer(layer, &asked.cluster, &checked.names);
    let why = checked.why.as_ref();
    let cluster_access = why.map_or_else(
        || alone(checked.cluster_access),
        |why| explained(&why.cluster_access),
    );
    let permission = why.map_or_else(
        || alone(checked.permission),
        |why| explained(&why.permission),
    );
    proto::CheckAccessResponse {
        principal: why.map(|_| principal(&asked.principal)),
        decision: decision(checked.decision()).into(),
        cluster_access: Some(cluster_access),
        permission: Some(permission),
        as_of: Some(timestamp(checked.as_of)),
        consistency_token: checked.token.to_string(),
        expire_time: checked.expire_time.map(timestamp),
    }
}

/// One of a batch's checks that cannot be carried out.
pub(in crate::grpc) fn failed_check(error: &BrokerError) -> proto::Failure {
    let reason = error.reason();
    proto::Failure {
        reason: reason.as_str().to_owned(),
        message: error.to_string(),
        retryable: error.retry_after().is_some(),
        code: reason.code(),
        metadata: error.metadata().into_iter().collect(),
        ..proto::Failure::default()
    }
}

/// One of a batch's checks that is no question: `metadata` has what is wrong, by field.
pub(in crate::grpc) fn invalid_check(violations: &[Violation]) -> proto::Failure {
    let fields: Vec<&str> = violations.iter().map(|it| it.field.as_str()).collect();
    let told = violations
        .iter()
        .map(|it| (it.field.clone(), it.description.clone()));
    proto::Failure {
        reason: Reason::InvalidRequest.as_str().to_owned(),
        message: format!("fields are wrong: {}", fields.join(", ")),
        retryable: false,
        code: Reason::InvalidRequest.code(),
        metadata: told.collect(),
        ..proto::Failure::default()
    }
}

/// A page of access.
pub(in crate::grpc) fn access_page(page: &AccessPage) -> proto::ListAccessResponse {
    proto::ListAccessResponse {
        entries: page
            .entries
            .iter()
            .map(|it| entry(it, &page.names))
            .collect(),
        next_page_token: page.next.clone(),
        as_of: Some(timestamp(page.as_of)),
        unreachable: page.unreachable.clone(),
    }
}

fn entry(entry: &AccessEntry, names: &Named) -> proto::list_access_response::Entry {
    let known = names.get(&entry.holder).map(principal);
    proto::list_access_response::Entry {
        principal: Some(proto::Principal {
            object_id: entry.holder.to_string(),
            r#type: entry
                .holder_kind
                .map_or(proto::PrincipalType::Unspecified, principal_type)
                .into(),
            ..known.unwrap_or_default()
        }),
        path: Some(path(&entry.path, &entry.cluster, names)),
    }
}

fn explained_layer(layer: &Layer, cluster: &ClusterId, names: &Named) -> proto::Layer {
    let paths = layer.paths.iter();
    proto::Layer {
        decision: decision(layer.decision).into(),
        paths: paths.map(|it| path(it, cluster, names)).collect(),
        findings: layer.findings.iter().map(finding).collect(),
    }
}

const fn decision(decision: Decision) -> proto::Decision {
    match decision {
        Decision::Allowed => proto::Decision::Allowed,
        Decision::Denied => proto::Decision::Denied,
        Decision::Conditional => proto::Decision::Conditional,
    }
}

fn path(path: &Path, cluster: &ClusterId, names: &Named) -> proto::AccessPath {
    let unnamed = |group| principal(&Principal::unnamed(group, PrincipalType::Group));
    let via = path.via.iter();
    proto::AccessPath {
        resource_id: path.resource_id.clone(),
        role: path.role.clone(),
        scope: path.scope.clone(),
        inherited: path.inherited,
        via: via
            .map(|group| names.get(group).map_or_else(|| unnamed(*group), principal))
            .collect(),
        managed: path.managed,
        // Several grants may call for one assignment; the field takes the one that ends last.
        grant_id: path
            .grants
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
        cluster: cluster.to_string(),
        expire_time: path.expire_time.map(timestamp),
    }
}
