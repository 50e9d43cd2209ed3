//! Logging in: the startup message and the ways of proving the password.

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::{backend, frontend};
use tokio_postgres::config::ChannelBinding as Wanted;

use fallible_iterator::FallibleIterator;

use super::binding;
use super::connection::{Connection, refused};
use super::error::Error;
use super::socket::Channel;
use crate::pg::Settings;

/// How values look as text must not depend on what somebody set for the role, the database or the server.
pub(in crate::feed) const FORMATS: [(&str, &str); 7] = [
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("TimeZone", "UTC"),
    // PostgreSQL 18 says in a warning alone that it leaves changes out.
    ("client_min_messages", "warning"),
];

/// Puts the startup message.
pub(super) fn start_up(connection: &mut Connection, settings: &Settings) -> Result<(), Error> {
    let config = settings.config();
    let own = [
        ("user", config.get_user()),
        ("database", config.get_dbname()),
        ("options", config.get_options()),
        ("application_name", config.get_application_name()),
        ("replication", Some("database")),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    frontend::startup_message(own.chain(FORMATS), connection.outgoing()).map_err(Error::Broken)
}

/// Answers what the server asks until it is content.
pub(super) async fn authenticate(
    connection: &mut Connection,
    settings: &Settings,
    channel: &Channel,
) -> Result<(), Error> {
    loop {
        match connection.receive().await? {
            backend::Message::AuthenticationOk => return Ok(()),
            backend::Message::AuthenticationCleartextPassword => {
                if matches!(channel, Channel::Clear) {
                    let advice = "set sslmode=require, or scram-sha-256 in pg_hba.conf";
                    return Err(asked(settings, "a password in clear text over the network", advice));
                }
                let password = password(settings)?;
                frontend::password_message(password, connection.outgoing()).map_err(Error::Broken)?;
                connection.send().await?;
            }
            backend::Message::AuthenticationMd5Password(body) => {
                let user = settings.config().get_user().unwrap_or_default();
                let hash = md5_hash(user.as_bytes(), password(settings)?, body.salt());
                frontend::password_message(hash.as_bytes(), connection.outgoing()).map_err(Error::Broken)?;
                connection.send().await?;
            }
            backend::Message::AuthenticationSasl(body) => scram(connection, settings, channel, &body).await?,
            backend::Message::ErrorResponse(body) => return Err(refused("logging in for replication", &body)),
            backend::Message::NoticeResponse(_) => {}
            _ => {
                let advice = "use scram-sha-256, md5 or a trusted address in pg_hba.conf";
                return Err(asked(settings, "a way of logging in that is not supported", advice));
            }
        }
    }
}

async fn scram(
    connection: &mut Connection,
    settings: &Settings,
    channel: &Channel,
    body: &backend::AuthenticationSaslBody,
) -> Result<(), Error> {
    let mut offered = body.mechanisms();
    let (mut plain, mut plus) = (false, false);
    while let Some(mechanism) = offered.next().map_err(Error::Broken)? {
        plain |= mechanism == SCRAM_SHA_256;
        plus |= mechanism == SCRAM_SHA_256_PLUS;
    }
    let wanted = settings.config().get_channel_binding();
    let bound = match (channel, wanted) {
        (Channel::Tls(Some(certificate)), Wanted::Prefer | Wanted::Require) => binding::digest(certificate),
        _ => None,
    };
    let (mechanism, channel_binding) = match (bound, plus, plain) {
        (Some(digest), true, _) => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(digest)),
        _ if wanted == Wanted::Require => {
            let advice = "the server cannot bind the login to its TLS certificate: set channel_binding=prefer";
            return Err(asked(settings, "a login without channel binding", advice));
        }
        (Some(_), false, true) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        (None, _, true) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        (_, _, false) => {
            return Err(asked(settings, "an unknown kind of SASL", "set scram-sha-256 in pg_hba.conf"));
        }
    };
    let mut scram = ScramSha256::new(password(settings)?, channel_binding);
    frontend::sasl_initial_response(mechanism, scram.message(), connection.outgoing()).map_err(Error::Broken)?;
    connection.send().await?;
    loop {
        match connection.receive().await? {
            backend::Message::AuthenticationSaslContinue(body) => {
                scram.update(body.data()).map_err(Error::Broken)?;
                frontend::sasl_response(scram.message(), connection.outgoing()).map_err(Error::Broken)?;
                connection.send().await?;
            }
            // The server proves that it knows the password too.
            backend::Message::AuthenticationSaslFinal(body) => {
                return scram.finish(body.data()).map_err(Error::Broken);
            }
            backend::Message::ErrorResponse(body) => return Err(refused("logging in for replication", &body)),
            backend::Message::NoticeResponse(_) => {}
            _ => return Err(Error::Protocol { what: "something else in the middle of SCRAM" }),
        }
    }
}

fn password(settings: &Settings) -> Result<&[u8], Error> {
    let advice = "give it in the database URL";
    settings.config().get_password().ok_or_else(|| asked(settings, "a password, and there is none", advice))
}

fn asked(settings: &Settings, asked: &'static str, advice: &'static str) -> Error {
    Error::Authentication { server: settings.to_string(), asked, advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_warnings_do_not_depend_on_the_role() {
        let mut connection = Connection::over(Box::new(tokio::io::duplex(1).0));
        let settings = Settings::parse("postgres://u@h/d?options=-cbytea_output%3Descape").expect("complete");
        start_up(&mut connection, &settings).expect("room");
        let message = connection.outgoing().clone();
        let says = |text: &str| message.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(FORMATS.iter().all(|(name, value)| says(&format!("{name}\0{value}\0"))));
        assert!(says("client_min_messages\0warning\0"), "without warnings, changes go missing unnoticed");
    }
}
