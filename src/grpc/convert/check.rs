//! Answers of `CheckAccess`.

use crate::broker::check::{Asked, Checked};
use crate::domain::access::{Principal, PrincipalType};
use crate::domain::evaluate::{Decision, Layer, Path};
use crate::grpc::proto;

use super::cluster::finding;
use super::{principal, timestamp};

/// An answer; with `explained`, the question that it explains itself by.
pub(in crate::grpc) fn answer(
    checked: &Checked,
    explained: Option<&Asked>,
) -> proto::CheckAccessResponse {
    let answer = &checked.answer;
    let layer = |layer: &Layer| match explained {
        Some(question) => explained_layer(layer, question),
        None => proto::Layer {
            decision: decision(layer.decision).into(),
            ..proto::Layer::default()
        },
    };
    proto::CheckAccessResponse {
        principal: explained.map(|question| principal(&question.principal)),
        decision: decision(answer.decision).into(),
        cluster_access: Some(layer(&answer.cluster_access)),
        permission: Some(layer(&answer.permission)),
        as_of: Some(timestamp(checked.as_of)),
        expire_time: answer.expire_time.map(timestamp),
        ..proto::CheckAccessResponse::default()
    }
}

fn explained_layer(layer: &Layer, question: &Asked) -> proto::Layer {
    proto::Layer {
        decision: decision(layer.decision).into(),
        paths: layer.paths.iter().map(|p| path(p, question)).collect(),
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

fn path(path: &Path, question: &Asked) -> proto::AccessPath {
    let via = path
        .via
        .map(|group| principal(&Principal::unnamed(group, PrincipalType::Group)));
    proto::AccessPath {
        resource_id: path.resource_id.clone(),
        role: path.role.clone(),
        scope: path.scope.clone(),
        inherited: path.inherited,
        via: via.into_iter().collect(),
        managed: path.managed,
        // Several grants may call for one assignment; the field takes the one that ends last.
        grant_id: path
            .grants
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
        cluster: question.cluster.to_string(),
        expire_time: path.expire_time.map(timestamp),
    }
}
