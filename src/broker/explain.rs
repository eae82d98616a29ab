//! `CheckAccess` with `explain`, and `ListAccess`: which live grant calls for each way in, and through which groups it
//! leads.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::check::{Asked, CheckError, Checked};
use super::{Broker, BrokerError};
use crate::domain::access::{Principal, PrincipalType};
use crate::domain::evaluate::Path;
use crate::domain::grant::Grant;
use crate::domain::ids::{ClusterId, PrincipalId, TargetId};
use crate::domain::membership::chain;

/// How many targets, or groups, are looked up at a time.
const READ_AT_ONCE: usize = 32;

/// The chains of somebody in more groups than this are not worked out: each of them would be asked for.
const MOST_GROUPS: usize = 50;

impl Broker {
    /// Names, for each path of ours, the live grants that call for it, and for each path through groups, all of them.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn explain(
        &self,
        asked: &Asked,
        checked: &mut Checked,
    ) -> Result<(), BrokerError> {
        let Some(answer) = &mut checked.why else {
            return Ok(());
        };
        let layers = [&mut answer.cluster_access, &mut answer.permission];
        let mut paths: Vec<&mut Path> = layers
            .into_iter()
            .flat_map(|layer| &mut layer.paths)
            .collect();
        self.name_groups(&asked.principal, &mut paths).await;
        let groups = paths.iter().flat_map(|path| path.via.iter().copied());
        checked.names = self.names.of(groups.collect()).await;
        let holder = |path: &Path| path.via.last().copied().unwrap_or(asked.principal.id);
        let paths = paths
            .into_iter()
            .map(|path| (holder(path), &asked.cluster, path));
        self.name_grants(paths.collect()).await
    }

    /// Names the live grants that call for each path of ours, the one that ends last first, and when that one ends.
    /// What an assignment's description names may have ended since: ids alone are not worth a write.
    pub(super) async fn name_grants(
        &self,
        paths: Vec<(PrincipalId, &ClusterId, &mut Path)>,
    ) -> Result<(), BrokerError> {
        let target = |principal, cluster: &ClusterId| TargetId {
            cluster: cluster.clone(),
            principal,
        };
        let ours = paths.iter().filter(|(_, _, path)| path.managed);
        let targets: BTreeSet<TargetId> = ours
            .map(|(principal, cluster, _)| target(*principal, cluster))
            .collect();
        let reads = targets.into_iter().map(|target| async move {
            let mut grants = self.live_grants_on(&target).await?;
            grants.sort_by_key(|grant| Reverse(grant.expiry));
            Ok::<_, BrokerError>((target, grants))
        });
        let live: BTreeMap<TargetId, Vec<Grant>> = stream::iter(reads)
            .buffer_unordered(READ_AT_ONCE)
            .try_collect()
            .await?;
        for (principal, cluster, path) in paths {
            if path.managed
                && let Some(grants) = live.get(&target(principal, cluster))
            {
                name(path, grants);
            }
        }
        Ok(())
    }

    /// Fills in the groups between a principal and those through which its paths lead. Where they cannot be read, the
    /// last one has to do: it is what the answer rests on.
    pub(super) async fn name_groups(&self, principal: &Principal, paths: &mut [&mut Path]) {
        if paths.iter().all(|path| path.via.is_empty()) {
            return;
        }
        // They are told, and nothing is decided by them: they may be as old as any data.
        let need = &self.check.oldest().into();
        let Ok(groups) = self.check.groups_of(principal, need).await else {
            return;
        };
        if groups.value.ids.len() > MOST_GROUPS {
            return;
        }
        let reads = groups.value.ids.iter().copied().map(|group| async move {
            let group = Principal::unnamed(group, PrincipalType::Group);
            let above = self.check.groups_of(&group, need).await?;
            Ok::<_, CheckError>((group.id, above.value.ids.iter().copied().collect()))
        });
        let above: Result<BTreeMap<PrincipalId, BTreeSet<PrincipalId>>, CheckError> =
            stream::iter(reads)
                .buffer_unordered(READ_AT_ONCE)
                .try_collect()
                .await;
        let Ok(above) = above else {
            return;
        };
        for path in paths {
            if let Some(holder) = path.via.last().copied() {
                path.via = chain(&above, holder);
            }
        }
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
