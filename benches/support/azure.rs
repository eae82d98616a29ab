//! The company as an Azure to read it from: the emulator, in this process.

use azure_emulator::{
    Cluster, Emulator, Group, InvalidScope, NewRoleAssignment, Options, Scope, ServicePrincipal,
    Settings, Subscription, User, World,
};
use uuid::{Uuid, uuid};

use super::company::{
    Company, DEPARTMENTS, Holder, Row, TEAMS, USERS, groups_of, guid, names_of, subscription_id,
};
use super::report::AnyError;

/// The broker's application.
pub(crate) const APPLICATION: Uuid = uuid!("40000000-0000-4000-8000-000000000001");
/// What it signs in with.
pub(crate) const SECRET: &str = "access-broker-secret";

const OWNER: Uuid = uuid!("8e3af657-a8ff-443c-a75c-2fe8c4bcb635");
/// A page holds a whole subscription: the emulator walks all that is assigned anywhere for each page.
const PAGE: usize = 5_000;

/// An Azure that lags and throttles nothing, with the company in it.
pub(crate) async fn azure(company: Company) -> Result<Emulator, AnyError> {
    let options = Options {
        world: world(company)?,
        settings: Settings {
            page_size: PAGE,
            ..Settings::immediate()
        },
        ..Options::default()
    };
    Ok(Emulator::start(options).await?)
}

fn world(company: Company) -> Result<World, AnyError> {
    let subscriptions = 0..company.subscriptions();
    let clusters = (0..company.clusters).map(|number| {
        let (group, name) = names_of(number);
        Cluster::healthy(subscription_of(number), &group, &name)
    });
    let broker = broker();
    let mut role_assignments = vec![NewRoleAssignment {
        scope: Scope::parse("/")?,
        role: OWNER,
        principal: broker.id,
        name: None,
        description: None,
        condition: None,
    }];
    for subscription in subscriptions.clone() {
        for row in company.rows_in(subscription) {
            role_assignments.push(assignment(&row)?);
        }
    }
    Ok(World {
        tenant: guid("tenant", 0),
        management_groups: Vec::new(),
        subscriptions: subscriptions
            .map(|number| Subscription {
                id: subscription_id(number),
                display_name: format!("Subscription {number}"),
                management_group: None,
            })
            .collect(),
        resource_groups: Vec::new(),
        users: (0..USERS).map(user).collect(),
        groups: (0..TEAMS + DEPARTMENTS).map(group).collect(),
        service_principals: vec![broker],
        devices: Vec::new(),
        clusters: clusters.collect(),
        fleets: Vec::new(),
        custom_roles: Vec::new(),
        role_assignments,
        deny_assignments: Vec::new(),
        locks: Vec::new(),
    })
}

fn subscription_of(cluster: usize) -> Uuid {
    subscription_id(cluster / super::company::CLUSTERS_OF_EACH)
}

fn assignment(row: &Row) -> Result<NewRoleAssignment, InvalidScope> {
    Ok(NewRoleAssignment {
        scope: Scope::parse(&row.scope)?,
        role: row.role,
        principal: row.holder.id(),
        name: Some(row.name),
        description: None,
        condition: None,
    })
}

fn broker() -> ServicePrincipal {
    let may = [
        "User.Read.All",
        "GroupMember.Read.All",
        "Application.Read.All",
    ];
    ServicePrincipal {
        id: guid("broker", 0),
        app_id: APPLICATION,
        display_name: "access-broker".to_owned(),
        account_enabled: true,
        secrets: vec![SECRET.to_owned()],
        federated_credentials: Vec::new(),
        graph_permissions: may.map(str::to_owned).into(),
        app_role_assignments: Vec::new(),
    }
}

fn user(number: usize) -> User {
    User {
        id: Holder::User(number).id(),
        display_name: format!("User {number}"),
        user_principal_name: format!("user{number}@contoso.example"),
        account_enabled: true,
    }
}

fn group(number: usize) -> Group {
    let members = if number < TEAMS {
        members_of(number)
            .map(|user| Holder::User(user).id())
            .collect()
    } else {
        let teams = teams_of(number - TEAMS);
        teams.map(|team| Holder::Group(team).id()).collect()
    };
    Group {
        id: Holder::Group(number).id(),
        display_name: format!("Group {number}"),
        security_enabled: true,
        members,
    }
}

/// The members of a team, by their numbers.
fn members_of(team: usize) -> impl Iterator<Item = usize> {
    (0..USERS).filter(move |user| groups_of(*user).any(|group| group == team))
}

/// The teams of a department.
fn teams_of(department: usize) -> impl Iterator<Item = usize> {
    (0..TEAMS).filter(move |team| team % DEPARTMENTS == department)
}
