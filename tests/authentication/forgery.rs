//! Tokens as nobody at Entra would issue them to a caller of the broker's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, decode_header, encode};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{ACCESS_BROKER, PLATFORM, World, token};

/// Ten minutes, in seconds: longer than clocks may be apart.
const LONG: i64 = 600;

/// Whoever knows what is public, and has keys of its own.
pub(crate) struct Forger<'w> {
    world: &'w World,
    good: String,
    claims: Value,
    key_id: String,
    own_key: EncodingKey,
}

type Forged = (&'static str, &'static str, String);

impl<'w> Forger<'w> {
    pub(crate) fn new(world: &'w World) -> Self {
        let good = token(&world.emulator, PLATFORM);
        let claims = world.emulator.claims(PLATFORM, &ACCESS_BROKER.to_string());
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        Self {
            world,
            claims: serde_json::to_value(claims.unwrap()).unwrap(),
            key_id: decode_header(&good).unwrap().kid.unwrap(),
            own_key: EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes()).unwrap(),
            good,
        }
    }

    /// All of them: how, the reason that is told, and the token.
    pub(crate) fn all(&self) -> Vec<Forged> {
        let mut all = self.of_keys();
        all.extend(self.of_headers());
        all.extend(self.of_claims());
        all
    }

    /// Signed by a key of the forger's, under this id.
    pub(crate) fn of_key(&self, id: &str) -> String {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(id.to_owned());
        encode(&header, &self.claims, &self.own_key).unwrap()
    }

    /// As Entra signs it for an application of the same id in another tenant: with the same key.
    pub(crate) fn of_tenant(&self, tenant: Uuid) -> String {
        let issuer = format!("{}/{tenant}/v2.0", self.world.emulator.urls().entra);
        self.signed(&[("tid", json!(tenant)), ("iss", json!(issuer))])
    }

    /// Signed by Entra, with other claims; `null` leaves one out.
    fn signed(&self, changes: &[(&str, Value)]) -> String {
        let mut claims = self.claims.clone();
        let all = claims.as_object_mut().unwrap();
        for (name, value) in changes {
            if value.is_null() {
                all.remove(*name);
            } else {
                all.insert((*name).to_owned(), value.clone());
            }
        }
        self.world.emulator.sign(&claims).unwrap()
    }

    /// Signed by Entra, with an extension that is critical in its header [RFC 7515 §4.1.11].
    pub(crate) fn critical(&self, extensions: &[&str]) -> String {
        let mut header = Header::new(Algorithm::RS256);
        header.crit = Some(extensions.iter().map(ToString::to_string).collect());
        let emulator = &self.world.emulator;
        emulator.sign_with(header, &self.claims).unwrap()
    }

    /// As Entra gives it for Graph: under a known key id, and with a signature that nobody but Graph can check.
    pub(crate) fn of_graph(&self, audience: &str) -> String {
        let mut claims = self.claims.clone();
        claims["aud"] = json!(audience);
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.key_id.clone());
        encode(&header, &claims, &self.own_key).unwrap()
    }

    /// A header and claims of any kind, and a signature of any kind.
    fn raw(&self, header: &Value, signature: &str) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.{signature}", part(header), part(&self.claims))
    }

    fn of_keys(&self) -> Vec<Forged> {
        let keys: Value = {
            let published = self.world.emulator.published_keys();
            serde_json::to_value(published).unwrap()
        };
        let modulus = keys["keys"][0]["n"].as_str().unwrap().to_owned();
        let mut hmac = Header::new(Algorithm::HS256);
        hmac.kid = Some(self.key_id.clone());
        let with = |secret: &[u8]| {
            let key = EncodingKey::from_secret(secret);
            encode(&hmac, &self.claims, &key).unwrap()
        };
        let bytes = URL_SAFE_NO_PAD.decode(&modulus).unwrap();
        let (signed, _) = self.good.rsplit_once('.').unwrap();
        let (header, rest) = self.good.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let mut other = self.claims.clone();
        other["oid"] = json!(Uuid::new_v4());
        let other = URL_SAFE_NO_PAD.encode(other.to_string());
        vec![
            ("HS256 by the public key", "TOKEN_INVALID", with(&bytes)),
            (
                "HS256 by its text",
                "TOKEN_INVALID",
                with(modulus.as_bytes()),
            ),
            (
                "another's key under its id",
                "TOKEN_INVALID",
                self.of_key(&self.key_id),
            ),
            ("another's key", "TOKEN_INVALID", self.of_key("mine")),
            ("no signature", "TOKEN_INVALID", format!("{signed}.")),
            ("half a token", "TOKEN_INVALID", signed.to_owned()),
            (
                "other claims under a good signature",
                "TOKEN_INVALID",
                format!("{header}.{other}.{signature}"),
            ),
        ]
    }

    fn of_headers(&self) -> Vec<Forged> {
        let mut forged = Vec::new();
        for algorithm in ["none", "None", "NONE", "", "RS257"] {
            for signature in ["", "AAAA"] {
                let header = json!({"alg": algorithm, "typ": "JWT", "kid": self.key_id});
                let token = self.raw(&header, signature);
                forged.push(("an algorithm that is none", "TOKEN_INVALID", token));
            }
        }
        for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
            let mut header = Header::new(algorithm);
            header.kid = Some(self.key_id.clone());
            let token = encode(&header, &self.claims, &self.own_key).unwrap();
            forged.push(("another algorithm", "TOKEN_INVALID", token));
        }
        for id in [
            "",
            "../../../../etc/passwd",
            "https://keys.example/",
            "' OR 1=1 --",
            "\u{0}",
        ] {
            forged.push((
                "a key id that leads elsewhere",
                "TOKEN_INVALID",
                self.of_key(id),
            ));
        }
        let mut header = Header::new(Algorithm::RS256);
        let without = encode(&header, &self.claims, &self.own_key).unwrap();
        forged.push(("no key id", "TOKEN_INVALID", without));
        for extensions in [&["exp"][..], &["b64", "http://vendor.example/tenant"], &[]] {
            let token = self.critical(extensions);
            forged.push(("a critical extension", "TOKEN_INVALID", token));
        }
        let own = jsonwebtoken::jwk::Jwk::from_encoding_key(&self.own_key, Algorithm::RS256);
        header.jwk = Some(own.unwrap());
        header.jku = Some("https://keys.example/".to_owned());
        header.x5u = Some("https://keys.example/".to_owned());
        for id in [None, Some(self.key_id.clone())] {
            header.kid = id;
            let token = encode(&header, &self.claims, &self.own_key).unwrap();
            forged.push(("a key that it brings itself", "TOKEN_INVALID", token));
        }
        forged
    }

    fn of_claims(&self) -> Vec<Forged> {
        let now = self.claims["iat"].as_i64().unwrap();
        let tenant = Uuid::new_v4();
        let entra = &self.world.emulator.urls().entra;
        let own = self.claims["tid"].as_str().unwrap();
        let emulator = &self.world.emulator;
        let graph = emulator.token(PLATFORM, "https://graph.microsoft.com");
        let arm = emulator.token(PLATFORM, "https://management.azure.com");
        let invalid = "TOKEN_INVALID";
        let past = json!(now - LONG);
        let mut forged = vec![
            ("a token for Graph", invalid, graph.unwrap()),
            ("a token for ARM", invalid, arm.unwrap()),
            (
                "another tenant's application of the same id",
                invalid,
                self.of_tenant(tenant),
            ),
            (
                "expired",
                "TOKEN_EXPIRED",
                self.signed(&[("nbf", json!(now - 2 * LONG)), ("exp", past)]),
            ),
            (
                "not yet valid",
                invalid,
                self.signed(&[("nbf", json!(now + LONG))]),
            ),
            (
                "an id token",
                invalid,
                self.signed(&[
                    ("azp", Value::Null),
                    ("idtyp", Value::Null),
                    ("nonce", json!("n")),
                ]),
            ),
            (
                "a person's id token that says what it was got with",
                invalid,
                self.signed(&[("idtyp", Value::Null), ("sub", json!("pairwise"))]),
            ),
            (
                "a device's",
                invalid,
                self.signed(&[("idtyp", json!("device"))]),
            ),
            (
                "a person's, permitted nothing",
                invalid,
                self.signed(&[("idtyp", json!("user")), ("scp", json!(""))]),
            ),
        ];
        for issuer in [
            format!("{entra}/{tenant}/v2.0"),
            format!("{entra}/{own}/v2.0/"),
            format!("{entra}/{own}"),
            format!("https://evil.example/{own}/v2.0"),
            String::new(),
        ] {
            let token = self.signed(&[("iss", json!(issuer))]);
            forged.push(("another issuer", invalid, token));
        }
        for audience in [
            json!("00000003-0000-0000-c000-000000000000"),
            json!(""),
            json!([ACCESS_BROKER, "another"]),
            json!([ACCESS_BROKER]),
            json!(format!("{ACCESS_BROKER} ")),
            json!(7),
        ] {
            let token = self.signed(&[("aud", audience)]);
            forged.push(("another audience", invalid, token));
        }
        for missing in ["aud", "iss", "exp", "nbf", "tid", "oid", "azp", "sub"] {
            forged.push((
                "a claim is missing",
                invalid,
                self.signed(&[(missing, Value::Null)]),
            ));
        }
        for end in [json!("never"), json!(-1), json!(1e300), json!([now + LONG])] {
            forged.push(("an end that is none", invalid, self.signed(&[("exp", end)])));
        }
        forged.push((
            "another tenant's number",
            invalid,
            self.signed(&[("tid", json!(tenant))]),
        ));
        forged
    }
}
