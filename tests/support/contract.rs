//! The contract as its descriptors tell it: which fields there are, and how a field is written on the wire.
//!
//! A test that walks these fields looks at those that are added later as well.

use std::collections::BTreeMap;

use aks_access_broker::grpc::DESCRIPTORS;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const PACKAGE: &str = ".aks.access.v1";

/// All messages, by their full names, and all RPCs.
pub struct Contract {
    messages: BTreeMap<String, DescriptorProto>,
    rpcs: BTreeMap<String, String>,
}

/// A field, seen from a request.
#[derive(Clone, Debug)]
pub struct Field {
    /// Such as `selector.external_key`, as violations name it; a list's elements have no index here.
    pub name: String,
    /// The numbers on the way to it, its own last.
    pub path: Vec<u32>,
    /// What kind of value it has.
    pub kind: Type,
    /// The full name of the message that it stands in.
    pub within: String,
    /// The full name of its message or enum, if it has one.
    pub of: String,
    /// It is a list, or a map.
    pub is_repeated: bool,
    /// One that is set but empty is told from one that is left out.
    pub is_optional: bool,
}

/// A value on the wire.
#[derive(Clone, Debug)]
pub enum Value {
    /// A number, a bool or an enum.
    Number(i64),
    /// A text.
    Text(String),
    /// A message with nothing in it.
    Empty,
}

impl Contract {
    /// As the server has it.
    pub fn read() -> Self {
        let files = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
        let mut messages = BTreeMap::new();
        let mut rpcs = BTreeMap::new();
        for file in files.file {
            let package = format!(".{}", file.package());
            for message in &file.message_type {
                collect(&package, message, &mut messages);
            }
            for method in file.service.iter().flat_map(|service| &service.method) {
                rpcs.insert(method.name().to_owned(), method.input_type().to_owned());
            }
        }
        assert!(rpcs.len() > 10 && messages.len() > 30, "they were not read");
        Self { messages, rpcs }
    }

    /// Each RPC, with the full name of its request.
    pub fn rpcs(&self) -> impl Iterator<Item = (&str, &str)> {
        let rpcs = self.rpcs.iter();
        rpcs.map(|(rpc, request)| (rpc.as_str(), request.as_str()))
    }

    /// All fields of a request, those of the messages within it too.
    pub fn fields(&self, request: &str) -> Vec<Field> {
        let mut fields = Vec::new();
        self.walk(request, "", &[], &mut fields);
        fields
    }

    fn walk(&self, message: &str, name: &str, path: &[u32], fields: &mut Vec<Field>) {
        assert!(path.len() < 10, "{message} is within itself");
        let dot = if name.is_empty() { "" } else { "." };
        for field in &self.messages[message].field {
            let name = format!("{name}{dot}{}", field.name());
            let number = u32::try_from(field.number()).expect("a number of a field");
            let path = [path, &[number]].concat();
            fields.push(Field {
                name: name.clone(),
                path: path.clone(),
                kind: field.r#type(),
                within: message.to_owned(),
                of: field.type_name().to_owned(),
                is_repeated: field.label() == Label::Repeated,
                is_optional: is_optional(field),
            });
            if field.r#type() == Type::Message {
                self.walk(field.type_name(), &name, &path, fields);
            }
        }
    }
}

fn is_optional(field: &FieldDescriptorProto) -> bool {
    field.r#type() == Type::Message || field.proto3_optional()
}

fn collect(within: &str, message: &DescriptorProto, all: &mut BTreeMap<String, DescriptorProto>) {
    let name = format!("{within}.{}", message.name());
    for nested in &message.nested_type {
        collect(&name, nested, all);
    }
    all.insert(name, message.clone());
}

impl Field {
    /// It is no message.
    pub fn is_scalar(&self) -> bool {
        self.kind != Type::Message
    }

    /// Its own name, such as `external_key`.
    pub fn own_name(&self) -> &str {
        self.name
            .rsplit_once('.')
            .map_or(&self.name, |(_, own)| own)
    }

    /// The message that it stands in, such as `GrantSelector`.
    pub fn owner(&self) -> &str {
        let of_ours = self.within.strip_prefix(PACKAGE);
        of_ours.map_or(&self.within, |name| name.trim_start_matches('.'))
    }

    /// What says nothing, in a field of this kind.
    pub fn empty(&self) -> Value {
        match self.kind {
            Type::String => Value::Text(String::new()),
            Type::Message => Value::Empty,
            _ => Value::Number(0),
        }
    }

    /// The least and the largest that a field of this kind can hold, and what lies about zero.
    pub fn extremes(&self) -> Vec<Value> {
        let numbers = |all: &[i64]| all.iter().map(|it| Value::Number(*it)).collect();
        match self.kind {
            Type::Bool => numbers(&[0, 1]),
            Type::Int32 | Type::Enum => {
                let (least, most) = (i64::from(i32::MIN), i64::from(i32::MAX));
                numbers(&[least, -1, 0, 1, most])
            }
            Type::Int64 => numbers(&[i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX]),
            Type::String => [
                "",
                "0",
                "0-0",
                "18446744073709551615-18446744073709551615",
                "\u{0}",
                "\u{10ffff}",
            ]
            .map(|text| Value::Text(text.to_owned()))
            .into_iter()
            .chain([Value::Text("ä".repeat(40_000))])
            .collect(),
            Type::Message => vec![Value::Empty],
            other => panic!("{}: say what the extremes of {other:?} are", self.name),
        }
    }

    /// The field with this value, as bytes. Behind the bytes of a request it stands for what the request said there: of a
    /// scalar the last one counts, messages are merged, and a list has one more.
    pub fn encoded(&self, value: &Value) -> Vec<u8> {
        let (own, outer) = self.path.split_last().expect("a number of its own");
        let within = outer.iter().rev();
        within.fold(written(*own, value), |bytes, number| {
            delimited(*number, &bytes)
        })
    }
}

fn written(number: u32, value: &Value) -> Vec<u8> {
    match value {
        Value::Number(it) => {
            let mut bytes = varint(u64::from(number) << 3);
            bytes.extend(varint(it.cast_unsigned()));
            bytes
        }
        Value::Text(text) => delimited(number, text.as_bytes()),
        Value::Empty => delimited(number, &[]),
    }
}

fn delimited(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = varint(u64::from(number) << 3 | 2);
    bytes.extend(varint(content.len() as u64));
    bytes.extend(content);
    bytes
}

fn varint(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(value, &mut bytes);
    bytes
}
