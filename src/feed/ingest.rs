//! The runner of the way in: source, decoder, journal, acknowledgement.
