//! What a connection needs of this machine: a file, a port, memory. Where there is none left, that says nothing of the server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::io::Errno;

/// Whether this machine was short of something, so that it could not do what it was asked.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

/// What keeps this machine from making a socket at the moment; none where it can.
pub(super) fn shortage() -> Option<io::Error> {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).err().filter(is_shortage)
}

/// Whether it was short of something so that it could not connect to this address. Where it has no address of its own to do so
/// from, as one without IPv6, it lacks no port, and will not have one the next time.
pub(super) fn is_shortage_of_connecting(error: &io::Error, address: SocketAddr) -> bool {
    is_shortage(error) && (Errno::from_io_error(error) != Some(Errno::ADDRNOTAVAIL) || has_source_for(address))
}

/// Whether this machine has an address from which it may speak to that one: a UDP socket finds that out, and sends nothing.
fn has_source_for(address: SocketAddr) -> bool {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(address)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_told_from_what_the_server_does() {
        let (here, nowhere): (SocketAddr, SocketAddr) =
            ("127.0.0.1:9".parse().unwrap(), "[fe80::1]:9".parse().unwrap());
        for (errno, is_short, is_short_of_nowhere) in [
            (Errno::MFILE, true, true),
            (Errno::NFILE, true, true),
            (Errno::NOBUFS, true, true),
            (Errno::NOMEM, true, true),
            // No port is left, or there is no address that it could be one of.
            (Errno::ADDRNOTAVAIL, true, false),
            (Errno::CONNREFUSED, false, false),
            (Errno::NETUNREACH, false, false),
            (Errno::TIMEDOUT, false, false),
        ] {
            let error = io::Error::from(errno);
            assert_eq!(is_shortage_of_connecting(&error, here), is_short, "{errno}");
            assert_eq!(is_shortage_of_connecting(&error, nowhere), is_short_of_nowhere, "{errno} from nowhere");
        }
        assert!(!is_shortage(&io::ErrorKind::NotFound.into()));
    }
}
