//! `validate_only`: what would be done, and nothing is done.

use std::collections::BTreeMap;

use aks_access_broker::grpc::proto::effect::Change;
use aks_access_broker::grpc::proto::grant::State;
use aks_access_broker::grpc::proto::{
    Effect, ExtendGrantResponse, Grant as ToldGrant, GrantRequest, GrantResponse, RevokeResponse,
};

use crate::grant::{later_end, wish};
use crate::model::{
    End, Grant, Model, Place, Target, Told, Verdict, Window, agree, holds, refused, served,
};

/// What would be done at a place.
type Planned = BTreeMap<Place, Change>;

impl Model {
    pub(crate) fn grant_planned(
        &mut self,
        asked: &GrantRequest,
        told: &Told<GrantResponse>,
        when: Window,
    ) -> Verdict {
        let obstacles = self.obstacles(asked);
        if !obstacles.is_empty() {
            return refused(told, &obstacles);
        }
        let answer = served(told)?;
        agree("job", &answer.job, &None)?;
        let would_be = answer.grant.as_ref().ok_or("grant: present")?;
        let earliest = wish(asked, "", when.from, "");
        let latest = wish(asked, "", when.to, "");
        let ends = (earliest.end, latest.end);
        let named = self.named_by(&asked.external_key).cloned();
        let own = named.as_ref().map_or(earliest.end, |grant| grant.end);
        let end = later_end(own, ends, would_be)?;
        let wished = if let Some(grant) = named {
            self.would_be_told(&grant, would_be, end, when)?;
            Grant { end, ..grant }
        } else {
            let wished = Grant { end, ..earliest };
            would_be_made(&wished, would_be)?;
            wished
        };
        self.effects_of_a_wish(&wished, &answer.planned_effects)?;
        self.findings_are_told(&wished, &answer.findings)
    }

    pub(crate) fn extension_planned(
        &mut self,
        id: &str,
        end: End,
        answer: &ExtendGrantResponse,
        when: Window,
    ) -> Verdict {
        agree("job", &answer.job, &None)?;
        let would_be = answer.grant.as_ref().ok_or("grant: present")?;
        let grant = self.grants[id].clone();
        self.would_be_told(&grant, would_be, end, when)?;
        self.effects_of_a_wish(&Grant { end, ..grant }, &answer.planned_effects)
    }

    /// A grant that is there, as it would be with a later end: all else is as it is.
    fn would_be_told(
        &mut self,
        grant: &Grant,
        told: &ToldGrant,
        end: End,
        when: Window,
    ) -> Verdict {
        agree("grant_id", &told.grant_id, &grant.id)?;
        let as_it_is = ToldGrant {
            expire_time: match grant.end {
                End::Never => None,
                End::At(_) if end == grant.end => told.expire_time,
                End::At(time) => Some(prost_types::Timestamp {
                    seconds: i64::try_from(time.div_euclid(1_000_000_000)).expect("seconds"),
                    nanos: i32::try_from(time.rem_euclid(1_000_000_000)).expect("nanoseconds"),
                }),
            },
            ..told.clone()
        };
        self.grant_is_told(&as_it_is, when)
    }

    /// What a wish would lead to at each of the places that it calls for: it is made, unless it is there; then
    /// its description is brought up to date if the wish makes its end a later one. What is under way may be
    /// seen as any of that.
    fn effects_of_a_wish(&self, wished: &Grant, told: &[Effect]) -> Verdict {
        let target = wished.target();
        let planned = self.planned(&target, told)?;
        let exact = self.rests(&target);
        let expected = wished.calls_for().into_iter().map(|place| {
            let change = match self.wished_until(&target, &place) {
                _ if self.is_foreign(&target, &place) => Change::None,
                None => Change::Create,
                Some(end) if end < wished.end => Change::Update,
                Some(_) => Change::None,
            };
            (place, change)
        });
        let expected: Planned = expected.collect();
        if exact {
            return agree("planned_effects", &planned, &expected);
        }
        let same_places = planned.keys().eq(expected.keys());
        let gives = |change: &Change| *change != Change::Delete;
        holds(same_places && planned.values().all(gives), || {
            format!("planned_effects: at {:?}", expected.keys())
        })
    }

    /// What the end of these grants would lead to: what only they call for goes; what others call for as well
    /// stays, and says its new end. The same holds for those that are going already, for what still stands of them.
    pub(crate) fn revocation_planned(
        &self,
        ending: &[&Grant],
        going: &[&Grant],
        answer: &RevokeResponse,
    ) -> Verdict {
        agree("job", &answer.job, &None)?;
        let mut told: BTreeMap<Target, Vec<Effect>> = BTreeMap::new();
        for effect in &answer.planned_effects {
            let principal = effect
                .principal_id
                .parse()
                .map_err(|_| "principal_id: a GUID")?;
            let target = (effect.cluster.clone(), principal);
            told.entry(target).or_default().push(effect.clone());
        }
        let expected = self.without(ending, ending);
        let mut possible = expected.clone();
        for (target, places) in self.without(going, ending) {
            possible.entry(target).or_default().extend(places);
        }
        let strangers = told.keys().any(|target| !possible.contains_key(target));
        holds(!strangers, || {
            format!("planned_effects: on {:?}", possible.keys())
        })?;
        for (target, possible) in possible {
            let planned = self.planned(&target, told.get(&target).map_or(&[], Vec::as_slice))?;
            if self.rests(&target) {
                let expected = expected.get(&target).cloned().unwrap_or_default();
                agree("planned_effects", &planned, &expected)?;
                continue;
            }
            let is_possible = |(place, change): (&Place, &Change)| {
                let goes = *change == Change::Delete;
                possible
                    .get(place)
                    .is_some_and(|rests| goes == (*rests == Change::Delete))
            };
            holds(planned.iter().all(is_possible), || {
                format!("planned_effects: among {possible:?}")
            })?;
        }
        Ok(())
    }

    /// What becomes of what `grants` call for, once all of `ending` have ended.
    fn without(&self, grants: &[&Grant], ending: &[&Grant]) -> BTreeMap<Target, Planned> {
        let mut without: BTreeMap<Target, Planned> = BTreeMap::new();
        for grant in grants {
            let target = grant.target();
            let stays = |place: &Place| {
                let others = self.live_on(&target);
                let others = others.filter(|other| !ending.iter().any(|one| one.id == other.id));
                let calling = others.filter(|other| other.calls_for().contains(place));
                calling.map(|other| other.end).max()
            };
            for place in grant.calls_for() {
                let change = match stays(&place) {
                    _ if self.is_foreign(&target, &place) => Change::None,
                    None => Change::Delete,
                    end if end < self.wished_until(&target, &place) => Change::Update,
                    Some(_) => Change::None,
                };
                let rows = without.entry(target.clone()).or_default();
                rows.insert(place, change);
            }
        }
        without
    }

    fn planned(&self, target: &Target, told: &[Effect]) -> Result<Planned, String> {
        let mut planned = Planned::new();
        for effect in told {
            let place = self.effect_is_told(effect, target)?;
            let before = planned.insert(place, effect.change());
            holds(before.is_none(), || {
                format!("each planned effect once, not {} twice", effect.resource_id)
            })?;
        }
        Ok(planned)
    }
}

/// A grant that is not there, as it would be: without an id, a job, or times but its end.
fn would_be_made(wished: &Grant, told: &ToldGrant) -> Verdict {
    let expected = ToldGrant {
        principal: told.principal.clone(),
        cluster: wished.cluster.clone(),
        access: Some(wished.role.access(&wished.namespaces)),
        state: State::Pending.into(),
        expire_time: told.expire_time,
        requested_by: told.requested_by.clone(),
        justification: wished.justification.clone(),
        labels: wished.labels.clone().into_iter().collect(),
        external_key: wished.external_key.clone(),
        on_behalf_of: wished.on_behalf_of.clone(),
        ..ToldGrant::default()
    };
    agree("grant", told, &expected)?;
    let told_id = told.principal.as_ref().map(|told| told.object_id.clone());
    agree(
        "principal",
        &told_id,
        &Some(wished.principal.id.to_string()),
    )
}
