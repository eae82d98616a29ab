//! Reads sections although values in them are wrong.
//!
//! serde stops at the first value that it cannot read. So that value is told and replaced by a stand-in, and the
//! section is read again, until all of it can be read. What then compares values with each other
//! ([`check`](super::check)) leaves out what rests on a stand-in.

use std::collections::BTreeMap;

use figment::error::{Actual, Kind};
use figment::value::{Dict, Value};
use figment::{Figment, Metadata, Source};
use serde::de::DeserializeOwned;
use serde_json::json;
use uuid::Uuid;

use super::load::{SECRETS, SECTIONS, variable};
use super::problem::{Problem, is_within};
use super::redact::may_hold_a_url;
use super::{Cloud, Origins, check, defaults};

/// Far more than there are keys. It ends the reading of a section whose errors cannot be mended.
const MOST_ERRORS: usize = 1_000;

/// The sections of all layers, and what was found wrong while they were read.
pub(super) struct Sections<'a> {
    figment: &'a Figment,
    problems: Vec<Problem>,
    /// The keys whose values could not be read, or are not there.
    unread: Vec<String>,
}

impl<'a> Sections<'a> {
    /// Begins with problems that are known already.
    pub(super) const fn new(figment: &'a Figment, problems: Vec<Problem>) -> Self {
        Self {
            figment,
            problems,
            unread: Vec::new(),
        }
    }

    /// Tells sections that nobody knows.
    pub(super) fn tell_unknown(&mut self) {
        let all = self.figment.extract::<BTreeMap<String, Value>>();
        let unknown = all.into_iter().flat_map(BTreeMap::into_keys);
        for key in unknown.filter(|key| !SECTIONS.contains(&key.as_str())) {
            let message = format!("unknown section; expected one of {}", SECTIONS.join(", "));
            self.tell(Problem::new(key, message));
        }
    }

    /// Reads one section. `None`: it cannot be read with stand-ins either, which has been told.
    pub(super) fn read<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let mut value = self.figment.find_value(name).ok()?;
        for _ in 0..MOST_ERRORS {
            let errors = match value.deserialize::<T>() {
                Ok(section) => return Some(section),
                Err(errors) => errors,
            };
            for error in errors {
                if !self.mend(name, &mut value, &error) {
                    return None;
                }
            }
        }
        None
    }

    /// Adds what shows once all sections are there. True: nothing is wrong.
    pub(super) fn check(&mut self, config: &super::Config) -> bool {
        let found = check::problems(config, !self.problems.is_empty());
        for problem in found {
            if !self.unread.iter().any(|unread| problem.rests_on(unread)) {
                self.tell(problem);
            }
        }
        self.problems.is_empty()
    }

    /// Everything that is wrong.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Tells an error, and changes the section so that it does not come again. False: it cannot be changed so.
    fn mend(&mut self, section: &str, value: &mut Value, error: &figment::Error) -> bool {
        let mut path = error.path.clone();
        if let Kind::MissingField(field) = &error.kind {
            path.push(field.clone().into_owned());
            self.tell_missing(&key(section, &path));
            return self.stand_in(section, value, &path);
        }
        self.tell(problem(section, error));
        if matches!(error.kind, Kind::UnknownField(..)) {
            return put(value, &path, None);
        }
        self.unread.push(key(section, &path));
        // A key with a default takes that; one without comes again, as missing.
        match path.last() {
            Some(last) if last.parse::<usize>().is_ok() => self.stand_in(section, value, &path),
            Some(_) => put(value, &path, None),
            None => {
                *value = Value::from(Dict::new());
                true
            }
        }
    }

    /// Puts a value where none can be read. Where none is known for the key, what the key is part of goes.
    fn stand_in(&mut self, section: &str, value: &mut Value, path: &[String]) -> bool {
        let mut path = path.to_vec();
        loop {
            let whole = key(section, &path);
            if let Some(stand_in) = stand_in(&whole) {
                return put(value, &path, Some(stand_in));
            }
            if path.pop().is_none() || path.is_empty() {
                return false;
            }
            self.unread.push(key(section, &path));
            if put(value, &path, None) {
                return true;
            }
        }
    }

    /// Tells that a key has to be set, unless its value, or that of what it is part of, was told as wrong.
    fn tell_missing(&mut self, key: &str) {
        if self.unread.iter().any(|unread| is_within(key, unread)) {
            return;
        }
        let message = match defaults::variable(self.figment, key) {
            None => "required, and not set".to_owned(),
            Some(variable) => {
                format!("required, and not set, nor is {variable} in the environment")
            }
        };
        self.problems.push(Problem::new(key, message));
        self.unread.push(key.to_owned());
    }

    fn tell(&mut self, problem: Problem) {
        let origin = self.origin(&problem.key);
        self.problems.push(problem.told_with(&origin));
    }

    /// Where a key's value came from, in words.
    fn origin(&self, key: &str) -> String {
        // An element of a list comes from where the list does.
        let key = key.split('[').next().unwrap_or(key);
        match self.figment.find_metadata(key) {
            Some(Metadata {
                source: Some(Source::Custom(variable)),
                ..
            }) => format!(" (from the environment: {variable})"),
            Some(metadata) if metadata.name.contains("environment") => {
                format!(" (from the environment: {})", variable(key))
            }
            Some(Metadata {
                source: Some(Source::File(file)),
                ..
            }) => format!(" (in {})", file.display()),
            _ => String::new(),
        }
    }
}

/// A key as it is told: `azure.subscriptions[1]`.
fn key(section: &str, path: &[String]) -> String {
    let mut key = section.to_owned();
    for part in path {
        if part.parse::<usize>().is_ok() {
            key.extend(["[", part, "]"]);
        } else {
            key.push('.');
            key.push_str(part);
        }
    }
    key
}

/// A well-formed value for a key that has no default. It is never used: the key's problem has been told.
fn stand_in(key: &str) -> Option<Value> {
    let Origins { arm, entra, graph } = Cloud::default().origins();
    // Elements of a list differ from each other: none is told as listed twice.
    let (key, element) = match key.strip_suffix(']').and_then(|key| key.split_once('[')) {
        Some((list, index)) => (list, Some(index.parse::<u128>().ok()?)),
        None => (key, None),
    };
    let id = Uuid::from_u128(element.map_or(0, |element| element + 1));
    let value = match (key, element) {
        ("azure.subscriptions" | "authentication.tenants", Some(_)) => json!(id),
        ("authentication.audiences", Some(_)) => json!(id.to_string()),
        ("redis.allow_weaker_durability", Some(_)) => json!("everysec"),
        ("azure.subscriptions", None) => json!([id]),
        ("azure.credential", None) => json!({"developer_tools": {}}),
        ("azure.endpoints", None) => json!({"arm": arm, "entra": entra, "graph": graph}),
        ("azure.endpoints.arm", None) => json!(arm),
        ("azure.endpoints.entra", None) => json!(entra),
        ("azure.endpoints.graph", None) => json!(graph),
        (
            "azure.credential.workload_identity.token_file"
            | "server.tls.certificate_file"
            | "server.tls.key_file",
            None,
        ) => json!("/"),
        (key, None) if key.ends_with("_id") => json!(id),
        (key, None) if is_rate(key) => json!(1),
        _ => return None,
    };
    Value::serialize(value).ok()
}

/// Whether a key is one of the numbers of a token bucket.
fn is_rate(key: &str) -> bool {
    [".capacity", ".per_second", ".per_minute"]
        .iter()
        .any(|end| key.ends_with(end))
}

/// Sets a value, or takes it out. False: there is no such place.
fn put(value: &mut Value, path: &[String], new: Option<Value>) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    if !rest.is_empty() {
        let below = match value {
            Value::Dict(_, keys) => keys.get_mut(first),
            Value::Array(_, elements) => first
                .parse()
                .ok()
                .and_then(|at: usize| elements.get_mut(at)),
            _ => None,
        };
        return below.is_some_and(|below| put(below, rest, new));
    }
    match (value, new) {
        (Value::Dict(_, keys), Some(new)) => {
            keys.insert(first.clone(), new);
            true
        }
        (Value::Dict(_, keys), None) => keys.remove(first).is_some(),
        (Value::Array(_, elements), Some(new)) => {
            let element = first
                .parse()
                .ok()
                .and_then(|at: usize| elements.get_mut(at));
            element.map(|element| *element = new).is_some()
        }
        _ => false,
    }
}

/// Says of figment's error which key it is about.
fn problem(section: &str, error: &figment::Error) -> Problem {
    let path = [&[section.to_owned()], error.path.as_slice()].concat();
    let mut message = match &error.kind {
        // Here the path ends in the key already.
        Kind::UnknownField(_, expected) => {
            format!("unknown key; expected one of {}", expected.join(", "))
        }
        // figment's own words repeat the value, which here may be a secret that was meant for a key below, or one in
        // a URL.
        Kind::InvalidType(value, expected) | Kind::InvalidValue(value, expected)
            if is_on_the_way_to_a_secret(&path) || is_a_url(value) =>
        {
            format!("not what belongs here; expected {expected}")
        }
        Kind::UnknownVariant(value, expected) if may_hold_a_url(value) => {
            format!(
                "not what belongs here; expected one of {}",
                expected.join(", ")
            )
        }
        kind => kind.to_string(),
    };
    if message.ends_with("expected a duration") {
        message.push_str(", as in 250ms, 20s, 5m or 24h");
    }
    Problem::new(key(section, &error.path), message)
}

fn is_a_url(value: &Actual) -> bool {
    matches!(value, Actual::Str(text) if may_hold_a_url(text))
}

/// Whether a path names a key that holds a secret itself, or anything above one.
fn is_on_the_way_to_a_secret(path: &[String]) -> bool {
    SECRETS.iter().any(|secret| {
        let mut segments = secret.split('.');
        path.iter().all(|key| segments.next() == Some(key))
    })
}
