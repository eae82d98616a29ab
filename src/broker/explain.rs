//! `CheckAccess` with `explain`: which live grant calls for each way in.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::check::{Asked, Checked};
use super::{Broker, BrokerError};
use crate::domain::evaluate::Path;
use crate::domain::grant::Grant;
use crate::domain::ids::{PrincipalId, TargetId};

impl Broker {
    /// Names, for each path of ours, the live grants that call for it, the one that ends last first, and when
    /// that one ends. What an assignment's description names may have ended since: ids alone are not worth a
    /// write.
    ///
    /// # Errors
    /// What the store says.
    pub async fn explain(&self, asked: &Asked, checked: &mut Checked) -> Result<(), BrokerError> {
        let answer = &mut checked.answer;
        let layers = [&mut answer.cluster_access, &mut answer.permission];
        let paths = layers.into_iter().flat_map(|layer| &mut layer.paths);
        let mut live: BTreeMap<PrincipalId, Vec<Grant>> = BTreeMap::new();
        for path in paths.filter(|path| path.managed) {
            let holder = path.via.unwrap_or(asked.principal.id);
            let grants = match live.entry(holder) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let target = TargetId {
                        cluster: asked.cluster.clone(),
                        principal: holder,
                    };
                    let mut grants = self.live_grants_on(&target).await?;
                    grants.sort_by_key(|grant| Reverse(grant.expiry));
                    unknown.insert(grants)
                }
            };
            name(path, grants);
        }
        Ok(())
    }
}

fn name(path: &mut Path, live: &[Grant]) {
    let calls_for = |grant: &&Grant| {
        grant
            .calls_for()
            .iter()
            .any(|at| at.role == path.role_id && at.scope.to_string() == path.scope)
    };
    let calling: Vec<&Grant> = live.iter().filter(calls_for).collect();
    if let Some(last) = calling.first() {
        path.expire_time = last.expiry.time();
    }
    path.grants = calling.iter().map(|grant| grant.id).collect();
}
