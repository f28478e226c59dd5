//! Blocks of addresses, as CIDR writes them.

use std::{fmt, net::IpAddr, str::FromStr};

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpBlock {
    first: IpAddr,
    prefix: u8,
}

/// Why a text is no block of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIpBlock {
    /// Not `address/bits`, or more bits than there are.
    #[error("`{0}` is no block of addresses such as 10.0.0.0/8, 2001:db8::/32 or 10.0.0.1")]
    Form(String),
    /// Bits beyond the prefix are set.
    #[error("`{text}` has bits set beyond its prefix; write {meant}")]
    Bits {
        /// As written.
        text: String,
        /// The block that holds the address.
        meant: IpBlock,
    },
}

impl IpBlock {
    /// The block of `prefix` bits that holds `address`; IPv4 in IPv6 clothes counts as IPv4.
    pub fn around(address: IpAddr, prefix: u8) -> Self {
        let address = address.to_canonical();
        match address {
            IpAddr::V4(v4) => {
                let prefix = prefix.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Self { first: IpAddr::V4((v4.to_bits() & mask).into()), prefix }
            }
            IpAddr::V6(v6) => {
                let prefix = prefix.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Self { first: IpAddr::V6((v6.to_bits() & mask).into()), prefix }
            }
        }
    }

    /// How many bits its addresses have in common.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is a block of IPv4 addresses.
    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// Whether `address` is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.to_canonical().is_ipv4() == self.is_ipv4()
            && Self::around(address, self.prefix) == *self
    }
}

impl FromStr for IpBlock {
    type Err = InvalidIpBlock;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || InvalidIpBlock::Form(text.chars().take(64).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => {
                let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
                let prefix = prefix.parse::<u8>().ok().filter(|_| digits);
                (address, Some(prefix.ok_or_else(form)?))
            }
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        if address.to_canonical() != address {
            // The prefix of ::ffff:10.0.0.0/104 counts bits of another address.
            return Err(form());
        }
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        if prefix > bits {
            return Err(form());
        }
        let meant = Self::around(address, prefix);
        if meant.first == address {
            Ok(meant)
        } else {
            Err(InvalidIpBlock::Bits { text: text.to_owned(), meant })
        }
    }
}

impl fmt::Display for IpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_begins_with_its_bits() {
        for (block, address, held) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "1.2.3.4", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::1/128", "fd00::2", false),
        ] {
            let block: IpBlock = block.parse().expect(block);
            assert_eq!(block.contains(address.parse().expect(address)), held, "{block} {address}");
            assert_eq!(block.to_string().parse(), Ok(block));
        }
    }

    #[test]
    fn refuses_what_is_no_block() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "x/8", "::ffff:10.0.0.0/104"]
        {
            text.parse::<IpBlock>().expect_err(text);
        }
        let error = "10.1.0.0/8".parse::<IpBlock>().expect_err("bits").to_string();
        assert!(error.ends_with("write 10.0.0.0/8"), "{error}");
    }
}
