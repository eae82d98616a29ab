//! Callers and clusters as Cedar's entities.

use std::collections::HashSet;

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};

use super::question::{self, Resource};
use crate::caller::{Caller, Kind};

/// An entity's name: its type, without the namespace, and its id.
pub(super) fn uid(kind: &str, id: &str) -> Result<EntityUid, String> {
    let name = format!("{}::{kind}", question::NAMESPACE);
    let name: EntityTypeName = name.parse().map_err(|error| format!("{name}: {error}"))?;
    Ok(EntityUid::from_type_name_and_id(name, EntityId::new(id)))
}

/// The caller, with the roles and groups that it is in.
pub(super) fn of_caller(caller: &Caller) -> Result<(EntityUid, Vec<Entity>), String> {
    let kind = match caller.kind {
        Kind::Application => "Application",
        Kind::User => "User",
        Kind::Certificate => "Certificate",
    };
    let principal = uid(kind, caller.name_in_kind())?;
    let roles = caller.roles.iter().map(|role| uid("AppRole", role));
    let groups = caller.groups.iter().map(|id| uid("Group", &id.to_string()));
    let parents: HashSet<EntityUid> = roles.chain(groups).collect::<Result<_, _>>()?;
    let text = |id: uuid::Uuid| RestrictedExpression::new_string(id.to_string());
    let attributes = caller.identity.map(|identity| {
        [
            ("tenant".to_owned(), text(identity.tenant)),
            ("object_id".to_owned(), text(identity.object_id)),
            ("application_id".to_owned(), text(identity.application_id)),
        ]
    });
    let attributes = attributes.into_iter().flatten();
    let mut entities: Vec<Entity> = parents.iter().cloned().map(Entity::with_uid).collect();
    let entity = Entity::new_with_tags(principal.clone(), attributes, parents, []);
    entities.push(entity.map_err(|error| error.to_string())?);
    Ok((principal, entities))
}

/// What it is about, with the resource group and the subscription that it is in.
pub(super) fn of_resource(
    resource: Resource<'_>,
    entities: &mut Vec<Entity>,
) -> Result<EntityUid, String> {
    let (id, known) = match resource {
        Resource::Cluster { id, known } => (id, known),
        Resource::Broker => {
            let broker = uid("Broker", "broker")?;
            entities.push(Entity::with_uid(broker.clone()));
            return Ok(broker);
        }
    };
    let subscription = uid("Subscription", &id.subscription().to_string())?;
    let group = uid("ResourceGroup", id.resource_group())?;
    let cluster = uid("Cluster", id.as_str())?;
    let (attributes, tags) = question::of_cluster(id, known);
    let entity = Entity::new_with_tags(cluster.clone(), attributes, [group.clone()], tags);
    entities.push(entity.map_err(|error| error.to_string())?);
    let above = HashSet::from([subscription.clone()]);
    entities.push(Entity::new_no_attrs(group, above));
    entities.push(Entity::with_uid(subscription));
    Ok(cluster)
}
