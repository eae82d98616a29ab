//! How an effect is written in its target's record.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::grant::TYPES;
use super::{Hash, word_of, write_json};
use crate::domain::access::RoleAtScope;
use crate::domain::effect::{Call, Effect, Foreign, Known};
use crate::domain::ids::{AssignmentName, RoleDefinitionId, Scope};
use crate::domain::job::JobEffect;
use crate::domain::ownership::Description;
use crate::domain::preview::{Change, PlannedEffect};
use crate::store::StoreError;

/// What scripts look at nothing of but `known`; an effect's intent, deadline, last PUT, and whether it may be gone, are fields
/// beside it.
#[derive(Serialize, Deserialize)]
struct EffectBody {
    v: u32,
    role: String,
    scope: String,
    n: u32,
    known: String,
    #[serde(default)]
    stood: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    foreign: Option<ForeignBody>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rewritten: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder_kind: Option<String>,
    changed: i64,
}

#[derive(Serialize, Deserialize)]
struct ForeignBody {
    name: String,
    conditional: bool,
}

pub(in crate::store) fn write_effect(effect: &Effect) -> String {
    let (known, foreign) = match &effect.known {
        Known::Absent => ("absent", None),
        Known::Present => ("present", None),
        Known::NameRefused => ("name refused", None),
        Known::Foreign(foreign) => (
            "foreign",
            Some(ForeignBody {
                name: foreign.name.to_string(),
                conditional: foreign.conditional,
            }),
        ),
    };
    write_json(&EffectBody {
        v: 1,
        role: effect.at.role.to_string(),
        scope: effect.at.scope.to_string(),
        n: effect.n,
        known: known.to_owned(),
        stood: effect.stood,
        foreign,
        written: effect.written.as_ref().map(Description::write),
        rewritten: effect.rewritten.map(Timestamp::as_millisecond),
        holder_kind: effect
            .holder_kind
            .map(|kind| word_of(&TYPES, &kind).to_owned()),
        changed: effect.changed.as_millisecond(),
    })
}

/// The effects of a target's record.
pub(in crate::store) fn read_effects(
    hash: &Hash,
) -> Result<BTreeMap<AssignmentName, Effect>, StoreError> {
    let read = |(name, value): (&str, &str)| {
        let effect = read_effect(hash, name, value)?;
        Ok((effect.name, effect))
    };
    hash.numbered('e').map(read).collect()
}

fn read_effect(hash: &Hash, name: &str, value: &str) -> Result<Effect, StoreError> {
    let bad = |error: &dyn std::fmt::Display| hash.unreadable(format!("effect {name}: {error}"));
    let body: EffectBody = hash.decode(name, value)?;
    if body.v != 1 {
        return Err(bad(&format!(
            "its format is {}, and this broker reads format 1",
            body.v
        )));
    }
    let known = match (body.known.as_str(), body.foreign) {
        ("absent", _) => Known::Absent,
        ("present", _) => Known::Present,
        ("name refused", _) => Known::NameRefused,
        ("foreign", Some(foreign)) => Known::Foreign(Foreign {
            name: foreign.name.parse().map_err(|error| bad(&error))?,
            conditional: foreign.conditional,
        }),
        (other, _) => return Err(bad(&format!("known is {other:?}"))),
    };
    let open = match hash
        .get(&format!("i:{name}"))
        .map(|intent| intent.split(':').next())
    {
        None => None,
        Some(Some("put")) => Some(Call::Put),
        Some(Some("delete")) => Some(Call::Delete),
        Some(other) => return Err(bad(&format!("its intent is {other:?}"))),
    };
    let holder_kind = match body.holder_kind {
        None => None,
        Some(word) => {
            let known = TYPES.iter().find(|(known, _)| *known == word);
            Some(
                known
                    .ok_or_else(|| bad(&format!("its holder is a {word:?}")))?
                    .1,
            )
        }
    };
    Ok(Effect {
        name: name.parse().map_err(|error| bad(&error))?,
        at: RoleAtScope {
            role: body.role.parse().map_err(|error| bad(&error))?,
            scope: Scope::parse(&body.scope).map_err(|error| bad(&error))?,
        },
        n: body.n,
        known,
        open,
        stood: body.stood || body.known == "present",
        may_be_gone: open == Some(Call::Delete) || hash.get(&format!("m:{name}")).is_some(),
        deadline: hash.optional_time(&format!("d:{name}"))?,
        put_until: hash.optional_time(&format!("p:{name}"))?,
        written: body.written.as_deref().and_then(Description::parse),
        rewritten: body
            .rewritten
            .map(Timestamp::from_millisecond)
            .transpose()
            .map_err(|error| bad(&error))?,
        holder_kind,
        changed: Timestamp::from_millisecond(body.changed).map_err(|error| bad(&error))?,
    })
}

/// What was done to an effect for a job.
#[derive(Serialize, Deserialize)]
struct JobEffectBody {
    role: String,
    role_name: String,
    scope: String,
    change: String,
    managed: bool,
}

const CHANGES: [(&str, Change); 4] = [
    ("create", Change::Create),
    ("update", Change::Update),
    ("delete", Change::Delete),
    ("keep", Change::Keep),
];

pub(in crate::store) fn write_job_effect(done: &JobEffect) -> String {
    let PlannedEffect {
        name: _,
        at,
        change,
        managed,
    } = &done.effect;
    write_json(&JobEffectBody {
        role: at.role.to_string(),
        role_name: done.role_name.clone(),
        scope: at.scope.to_string(),
        change: word_of(&CHANGES, change).to_owned(),
        managed: *managed,
    })
}

/// What was done for a job on one target, in the order of the assignments' names.
pub(super) fn read_job_effects(hash: &Hash) -> Result<Vec<JobEffect>, StoreError> {
    let read = |(name, value): (&str, &str)| {
        let body: JobEffectBody = hash.decode(name, value)?;
        let change = CHANGES.iter().find(|(word, _)| *word == body.change);
        let effect = PlannedEffect {
            name: AssignmentName::parse(name).map_err(|error| hash.unreadable(error))?,
            at: RoleAtScope {
                role: RoleDefinitionId::parse(&body.role)
                    .map_err(|error| hash.unreadable(error))?,
                scope: Scope::parse(&body.scope).map_err(|error| hash.unreadable(error))?,
            },
            change: change
                .ok_or_else(|| hash.unreadable(format!("{name}: change is {:?}", body.change)))?
                .1,
            managed: body.managed,
        };
        Ok(JobEffect {
            effect,
            role_name: body.role_name,
        })
    };
    let mut effects: Vec<JobEffect> = hash.numbered('e').map(read).collect::<Result<_, _>>()?;
    effects.sort_by_key(|done| done.effect.name);
    Ok(effects)
}
