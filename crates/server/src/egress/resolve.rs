//! From a host name to a connection: look up, judge every address, connect to a judged one.

use super::policy::{Policy, Upstream};
use super::refusal::Refusal;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Longest lookup of a name.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time to connect, all addresses together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Lookups at the same time in this process; each holds a thread, even after its timeout.
static LOOKUPS: Semaphore = Semaphore::const_new(32);

/// Where a request wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Lower case, no brackets, no final dot.
    pub(super) host: String,
    pub(super) port: u16,
}

/// How the target was reached.
#[derive(Debug)]
pub(super) enum Reached {
    Direct(TcpStream),
    /// A connection to the operator's proxy, which still has to be told the target.
    Upstream(TcpStream),
}

/// Connects to a target if the policy allows it.
pub(super) async fn reach(policy: &Policy, target: &Target) -> Result<Reached, Refusal> {
    let verdict = policy.judge_host(&target.host, target.port)?;
    if policy.upstream().is_some() && policy.needs_addresses(&target.host) {
        // The upstream proxy chooses the address, so nobody can say whether it is an allowed one.
        let host = target.host.clone();
        return Err(Refusal::NotAllowedHere { host });
    }
    let addresses = match lookup(target).await {
        Ok(addresses) => addresses,
        // Behind a proxy names of the world often cannot be resolved here; the proxy can.
        Err(Refusal::Lookup { .. }) if policy.upstream().is_some() => Vec::new(),
        Err(refusal) => return Err(refusal),
    };
    let mut allowed = Vec::new();
    let mut refused = None;
    for address in addresses.iter().take(ADDRESSES_MAX) {
        match policy.judge_address(&target.host, verdict, *address, is_local(address.ip())) {
            Ok(()) => allowed.push(*address),
            Err(refusal) => refused = refused.or(Some(refusal)),
        }
    }
    if let (Some(refusal), true) = (refused, allowed.is_empty()) {
        return Err(refusal);
    }
    match policy.upstream() {
        Some(upstream) => connect_upstream(upstream).await.map(Reached::Upstream),
        None => connect(target, &allowed).await.map(Reached::Direct),
    }
}

async fn connect(target: &Target, addresses: &[SocketAddr]) -> Result<TcpStream, Refusal> {
    let attempts = async {
        let mut last = None;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    };
    let (host, port) = (target.host.clone(), target.port);
    match timeout(CONNECT_TIMEOUT, attempts).await {
        Ok(Ok(stream)) => {
            // Small requests must not wait for acknowledgements; a failure costs only speed.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(e)) => Err(Refusal::Connect {
            host,
            port,
            reason: e.to_string(),
        }),
        Err(_) => Err(Refusal::ConnectTimeout { host, port }),
    }
}

/// The operator named it, so it may be anywhere.
async fn connect_upstream(upstream: &Upstream) -> Result<TcpStream, Refusal> {
    let target = Target {
        host: upstream.host.clone(),
        port: upstream.port,
    };
    let addresses = lookup(&target).await?;
    connect(&target, &addresses).await
}

/// All addresses of a host. Numbers in any notation come back as the address they mean.
async fn lookup(target: &Target) -> Result<Vec<SocketAddr>, Refusal> {
    if let Ok(ip) = target.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, target.port)]);
    }
    let host = target.host.clone();
    let port = target.port;
    let work = async {
        let permit = LOOKUPS.acquire().await;
        let name = host.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            (name.as_str(), port).to_socket_addrs().map(Vec::from_iter)
        });
        answer
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the lookup stopped")))
    };
    match timeout(LOOKUP_TIMEOUT, work).await {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => Err(Refusal::Lookup {
            host,
            reason: "it has no address".into(),
        }),
        Ok(Err(e)) => Err(Refusal::Lookup {
            host,
            reason: e.to_string(),
        }),
        Err(_) => Err(Refusal::LookupTimeout { host }),
    }
}

/// Whether an address is one of this machine's: only those can be bound. Asked anew each time,
/// since interfaces come and go.
fn is_local(ip: IpAddr) -> bool {
    match UdpSocket::bind(SocketAddr::new(ip, 0)) {
        Ok(_) => true,
        // Cannot be told from local: refused rather than believed.
        Err(e) => {
            e.kind() != io::ErrorKind::AddrNotAvailable
                && e.kind() != io::ErrorKind::Unsupported
                && e.raw_os_error() != Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_told_from_others() {
        assert!(is_local("127.0.0.1".parse().unwrap()));
        assert!(is_local("127.8.9.1".parse().unwrap()));
        assert!(!is_local("192.0.2.1".parse().unwrap()));
        assert!(!is_local("2001:db8::1".parse().unwrap()));
    }

    #[tokio::test]
    async fn odd_notations_of_loopback_are_seen_through() {
        for host in [
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "localhost",
        ] {
            let target = Target {
                host: host.into(),
                port: 80,
            };
            let refusal = reach(&Policy::default(), &target).await.unwrap_err();
            assert!(
                matches!(refusal, Refusal::Address { .. }),
                "{host}: {refusal:?}"
            );
        }
    }
}
