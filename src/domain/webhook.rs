//! How a receiver tells callbacks apart and knows that they are ours: the id and the signature of Standard Webhooks 1.0.0.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::limits;
use super::timer::Timer;

/// Reads what people cut and paste: padding does not matter, nor do the bits behind the last byte.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Bytes of the hash that stand in an id: 128 bits never meet by chance.
const ID_BYTES: usize = 16;

/// The `webhook-id` of a timer's firing: 32 hex digits.
///
/// It is the same for every attempt and under every owner, because nothing in it changes by a retry; it is another one
/// after the timer was moved to another `execute_at`, or overwritten.
pub fn id(timer: &Timer) -> String {
    let key = &timer.definition.key;
    let mut hash = Sha256::new();
    for name in [&key.namespace, &key.id] {
        // With its length in front, so that no two pairs of names run together into the same text.
        hash.update(u64::try_from(name.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(name.as_bytes());
    }
    hash.update(timer.definition.execute_at.micros().to_be_bytes());
    hash.update(timer.created_at.micros().to_be_bytes());
    hash.finalize().iter().take(ID_BYTES).fold(String::with_capacity(2 * ID_BYTES), |mut id, byte| {
        for digit in [byte >> 4, byte & 15] {
            id.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
        id
    })
}

/// A namespace's secret, which signs its callbacks. It never shows in text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// The text is not `whsec_` and base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a secret: expected whsec_ and base64")]
pub struct ParseSecretError;

/// The secret is too short or too long for Standard Webhooks. What its bytes are is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have {} to {} bytes, not {bytes}", limits::SECRET_BYTES.start(), limits::SECRET_BYTES.end())]
pub struct SecretLengthError {
    /// How many it has.
    pub bytes: usize,
}

impl FromStr for Secret {
    type Err = ParseSecretError;

    /// Reads `whsec_…`, with or without padding.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let encoded = text.strip_prefix("whsec_").filter(|rest| !rest.is_empty()).ok_or(ParseSecretError)?;
        LENIENT.decode(encoded.trim_end_matches('=')).map(Self).map_err(|_| ParseSecretError)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// The secret that these bytes are; as many as [`limits::SECRET_BYTES`] allows.
    pub fn of_bytes(bytes: &[u8]) -> Result<Self, SecretLengthError> {
        let secret = Self(bytes.to_vec());
        secret.check_length().map(|()| secret)
    }

    /// Checks that a new secret has as many bytes as [`limits::SECRET_BYTES`] allows. One that is in use already may have
    /// another length, and signs all the same.
    pub fn check_length(&self) -> Result<(), SecretLengthError> {
        let bytes = self.0.len();
        limits::SECRET_BYTES.contains(&bytes).then_some(()).ok_or(SecretLengthError { bytes })
    }

    /// The secret as it is written, `whsec_…` with its padding: for the database, and once for who has it made.
    pub fn reveal(&self) -> String {
        format!("whsec_{}", STANDARD.encode(&self.0))
    }

    /// The signature of a message sent at `timestamp`, in seconds since 1970: `v1,` and base64.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("an HMAC takes a key of any length");
        for part in [id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body] {
            mac.update(part);
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The `webhook-signature` header: a signature by each secret, so that one can replace the other while both are good.
/// None where there is no secret.
pub fn signatures(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
    let signatures: Vec<_> = secrets.iter().map(|secret| secret.sign(id, timestamp, body)).collect();
    (!signatures.is_empty()).then(|| signatures.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::domain::callback::Callback;
    use crate::domain::retry::RetryPolicy;
    use crate::domain::timer::{Definition, TimerKey};
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    /// The example that the libraries of Standard Webhooks test themselves against.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn sign_example(secret: &str) -> String {
        let secret: Secret = secret.parse().expect("a secret");
        secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#)
    }

    fn timer(namespace: &str, id: &str, execute_at: i64, created_at: i64) -> Timer {
        let callback = Callback {
            url: "http://example.com".to_owned(),
            method: "POST".to_owned(),
            headers: BTreeMap::new(),
            timeout: Duration::from_secs(30),
        };
        let definition = Definition {
            key: TimerKey::new(namespace, id),
            execute_at: Timestamp::from_micros(execute_at),
            callback,
            payload: None,
            retry: RetryPolicy::default(),
        };
        let created_at = Timestamp::from_micros(created_at);
        Timer { attempts: 1, ..Timer::new(definition, created_at) }
    }

    #[test]
    fn signs_as_the_published_example() {
        assert_eq!(sign_example(SECRET), SIGNATURE);
        assert_eq!(sign_example(&format!("{SECRET}==")), SIGNATURE, "padding does not matter");
    }

    #[test]
    fn every_secret_signs() {
        let secrets = [SECRET.parse().expect("a secret"), "whsec_AAAA".parse().expect("a secret")];
        let both = signatures(&secrets, "id", 1, b"{}").expect("two signatures");
        assert_eq!(both, format!("{} {}", secrets[0].sign("id", 1, b"{}"), secrets[1].sign("id", 1, b"{}")));
        assert_eq!(signatures(&[], "id", 1, b"{}"), None);
    }

    #[test]
    fn a_secret_does_not_show() {
        let secret: Secret = SECRET.parse().expect("a secret");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        for text in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_*", "whsec_A", "WHSEC_AAAA"] {
            assert_eq!(text.parse::<Secret>(), Err(ParseSecretError), "{text}");
        }
    }

    #[test]
    fn a_new_secret_has_24_to_64_bytes_and_reads_as_it_is_written() {
        for (length, good) in [(0, false), (23, false), (24, true), (64, true), (65, false)] {
            let bytes = vec![251; length];
            let made = Secret::of_bytes(&bytes);
            assert_eq!(made.is_ok(), good, "{length}");
            assert_eq!(Secret(bytes).check_length().err(), made.as_ref().err().copied());
            if let Ok(secret) = made {
                assert_eq!(secret.reveal().parse(), Ok(secret));
            }
        }
        let error = Secret::of_bytes(b"short").expect_err("it is too short");
        assert_eq!(error.to_string(), "must have 24 to 64 bytes, not 5");
    }

    #[test]
    fn an_id_is_the_same_over_retries_and_no_others() {
        let first = timer("n", "a.b", 5, 6);
        let retried = Timer { attempts: 7, retry_at: Some(Timestamp::from_micros(9)), ..first.clone() };
        assert_eq!(id(&first), id(&retried));
        assert_eq!(id(&first).len(), 32);
        assert!(id(&first).bytes().all(|b| b.is_ascii_hexdigit()));

        let others =
            [first, timer("n", "a.b", 6, 6), timer("n", "a.b", 5, 7), timer("n", "a.c", 5, 6), timer("na", ".b", 5, 6)];
        let ids: BTreeSet<_> = others.iter().map(id).collect();
        assert_eq!(ids.len(), others.len());
    }
}
