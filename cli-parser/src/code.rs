//! The numbers by which errors are known; they keep those of ngrok, so that what is documented there holds here.

use std::fmt;

/// An error number. Shown as `ERR_HITHE_1107`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u16);

impl Code {
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    pub const fn number(self) -> u16 {
        self.0
    }

    /// What the code means in one line; `None` for a number that is not in use.
    pub fn meaning(self) -> Option<&'static str> {
        CODES.iter().find(|(code, _)| *code == self).map(|(_, meaning)| *meaning)
    }

    /// The place of a code that is in use in the order of [`Self::all`].
    pub fn index(self) -> Option<usize> {
        CODES.binary_search_by_key(&self, |(code, _)| *code).ok()
    }

    /// Every code in use, in the order of the reference.
    pub fn all() -> impl Iterator<Item = (Self, &'static str)> {
        CODES.iter().copied()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ERR_HITHE_{}", self.0)
    }
}

macro_rules! codes {
    ($($name:ident = $number:literal, $meaning:literal;)*) => {
        impl Code {
            $(#[doc = $meaning] pub const $name: Self = Self($number);)*
        }

        const CODES: &[(Code, &str)] = &[$((Code::$name, $meaning)),*];
    };
}

codes! {
    SESSION_LIMIT = 108, "more sessions that publish than the account may have";
    TLS_VERSION = 224, "a TLS version other than 1.2 or 1.3";
    PORT_NOT_GRANTED = 308, "a tcp port that the rules of your key or token do not allow";
    NAME_NOT_GRANTED = 316, "a name that the rules of your key or token do not allow";
    WILDCARD_NOT_GRANTED = 318, "a wildcard that needs the operator's grant";
    CUSTOM_DOMAIN = 319, "a name outside the server's domain that the operator has not allowed, that is not proved to be yours, or that has no certificate";
    NAME_RESERVED = 320, "a name that the operator keeps";
    ENDPOINT_LIMIT = 324, "more names and ports than the account may have";
    NAME_CHARACTERS = 326, "a character that host names do not have";
    NAME_EMPTY_LABEL = 327, "an empty label (two dots in a row, or nothing at all)";
    NAME_LABEL_START = 328, "a label that does not begin with a letter or digit, or a * that is not the whole first label";
    NAME_LABEL_END = 329, "a label that does not end with a letter or digit";
    NAME_DOUBLE_HYPHEN = 330, "hyphens in the third and fourth place of a label that is not punycode";
    NAME_IN_USE = 334, "a name or port that is in use, or belongs to another account";
    NAME_PUNYCODE = 347, "a label that is not valid punycode or cannot be written as such";
    NAME_UNDERSCORE = 355, "an underscore in a host name";
    RANDOM_PORT_NOT_GRANTED = 356, "a tcp endpoint, where the rules of your key or token allow none";
    BASIC_AUTH_USER = 359, "basic auth without a user name";
    BASIC_AUTH_PASSWORD = 360, "a basic auth password shorter than 8 or longer than 128 characters";
    BREAKER_SHARE = 361, "a circuit breaker whose share is not between 0 and 1";
    CIDR = 362, "something that is not a range of addresses in CIDR notation";
    WEBHOOK_NO_PROVIDER = 363, "webhook verification without the name of a provider";
    WEBHOOK_PROVIDER = 364, "webhook verification for a provider that is not known";
    REQUEST_HEADER_RULE = 370, "a request header rule that is not NAME: VALUE";
    RESPONSE_HEADER_RULE = 371, "a response header rule that is not NAME: VALUE";
    REQUEST_HEADER_KEPT = 372, "a request header that cannot be changed";
    RESPONSE_HEADER_KEPT = 373, "a response header that cannot be changed";
    HEADER_NAME = 374, "a header rule with a name or value that HTTP does not allow";
    HEADER_CASE = 375, "a header that is added under two spellings";
    HEADER_COUNT = 376, "too many header rules";
    HEADER_NAME_LENGTH = 377, "a header name longer than 256 bytes";
    HEADER_VALUE_LENGTH = 378, "a header value longer than 4096 bytes";
    WEBHOOK_PUBLIC_KEY = 379, "a secret for sendgrid that is not a public key on the curve P-256";
    CIDR_DENY_ALONE = 393, "denied networks without allowed ones, which would admit nobody";
    NAME_LABEL_LENGTH = 396, "a label longer than 63 characters";
    NAME_LENGTH = 397, "a host name longer than 253 characters";
    HOST_REMOVED = 398, "the header host is removed without another in its place";
    DESCRIPTION_LENGTH = 504, "a description longer than 255 bytes";
    METADATA_LENGTH = 505, "metadata longer than 4096 bytes";
    RATE_LIMITED = 702, "the visitor sends more requests than the endpoint's rate limit admits";
    VISITOR_REQUESTS = 703, "more requests a second from the visitor's network than the server admits";
    VISITOR_CONNECTIONS = 715, "more connections from the visitor's network than the server admits";
    TRAFFIC_USED_UP = 725, "the publisher's account has used up its bytes of this month";
    VISIT_LIMIT = 734, "more visits at once than the publisher's account may have";
    DRAINING = 742, "the server is shutting down";
    TOO_BUSY = 743, "the server or the tunnel is too busy";
    SPOOL_FULL = 744, "a visitor so slow that what waits for it has no place any more";
    NO_KEY = 1100, "the client offered no public key";
    UNKNOWN_KEY = 1102, "no offered key is known to the server";
    UNKNOWN_SYNTAX_VERSION = 1106, "a user name such as v9 that asks for an unknown command syntax";
    NO_COMMAND = 1107, "no command was given";
    UNKNOWN_COMMAND = 1108, "the command is not http, tls or tcp";
    UNSUPPORTED_FLAG = 1109, "a flag that is known but not offered here";
    BAD_FLAG = 1110, "a flag that is not known, or a value that it does not take";
    NO_SESSION_IN_TIME = 1111, "a forward without a command in time";
    NO_FORWARD = 1112, "a command without a forward, or too many forwards";
    PORT_NOT_FOR_COMMAND = 1113, "the port of -R does not go with the command";
    REMOTE_ADDR_AND_NAME = 1114, "--remote-addr or --url for a tcp endpoint, and a name in -R";
    REMOTE_ADDR_AND_PORT = 1115, "--remote-addr or --url for a tcp endpoint, and a port in -R";
    TCP_WITH_NAME = 1117, "a name in -R for a tcp endpoint, which has a port and no name";
    HOSTNAME_AND_NAME = 1118, "--domain, --hostname or --url, and a name in -R";
    SUBDOMAIN_AND_NAME = 1119, "--subdomain, and a name in -R";
    HOSTNAME_AND_SUBDOMAIN = 1120, "both --hostname and --subdomain";
    PROXY_VERSION = 1123, "a version of the PROXY protocol other than 1 or 2";
    NOT_ADMIN = 1130, "a command about the server that only admins may give";
    ADMIN_FAILED = 1131, "a command about the server that could not be done";
    LOGIN_PENALTY = 1132, "too many failed logins from the client's network, which has to wait now";
    LOGINS_TOTAL = 1133, "too many connections that have not logged in yet";
    LOGINS_OF_SOURCE = 1134, "too many connections from the client's network";
    LOGIN_DEADLINE = 1135, "a client that took too long to log in";
    PORT_LIMIT = 1136, "more tcp ports than the account may have";
    TAKEN_OVER = 1137, "another session of the account serves in place of this one";
    BAD_REQUEST = 1400, "the visitor's request is malformed or ambiguous (400), or its head is too large (414, 431)";
    SLOW_HEAD = 1407, "a visitor that took too long over the head of a request";
    SLOW_BODY = 1408, "a visitor that took too long over the body of a request";
    SLOW_READER = 1409, "a visitor that took nothing of what waited for it";
    FRAME_FLOOD = 1410, "a visitor that sends more frames of HTTP/2 than anybody needs";
    MISDIRECTED = 1421, "the request belongs to an endpoint that this connection cannot reach (421)";
    TLS_VERSION_PLACE = 1632, "a TLS version where TLS does not end at the server";
    CERTIFICATE = 1633, "a certificate or key that cannot be used";
    MUTUAL_TLS_PLACE = 1694, "mutual TLS where TLS does not end at the server, or beside plain http";
    MUTUAL_TLS_PEM = 1695, "certificate authorities that cannot be read, or are not known to the server";
    MUTUAL_TLS_NO_CA = 1696, "a certificate among the authorities that is none";
    WEBHOOK_NO_SECRET = 2032, "webhook verification without a secret, where the provider has one";
    USER_AGENT_PATTERN = 2090, "a user agent expression that is not valid";
    NOT_TLS = 3002, "something other than TLS on the HTTPS port";
    SNI_MISSING = 3003, "a TLS connection without a server name";
    UPSTREAM_BROKE = 3004, "the upstream's answer was not valid HTTP or ended early";
    UPSTREAM_TIMEOUT = 3005, "the publisher did not reach its upstream in time";
    SLOW_HANDSHAKE = 3006, "a visitor that said nothing, or did not finish its TLS handshake in time";
    UPSTREAM_TLS = 3007, "no TLS with the upstream: it speaks none, or its certificate is not the right one";
    ENDPOINT_OFFLINE = 3200, "no endpoint answers for the name";
    BREAKER_OPEN = 3202, "the circuit breaker is open: the upstream failed too often";
    WEBHOOK_REFUSED = 3204, "a webhook that its provider did not sign, that is too old (403) or too large (413)";
    IP_RESTRICTED = 3205, "the visitor's address is not admitted";
    NOT_A_WEBSOCKET = 3206, "a request that is no WebSocket handshake, where only these are taken";
    USER_AGENT_REFUSED = 3211, "the visitor's user agent is not admitted";
    BASIC_AUTH_REQUIRED = 3250, "basic auth credentials are missing or wrong";
    POOL_DIFFERS = 6030, "a pool whose other members have other options";
    WEBHOOK_NEEDLESS_SECRET = 7026, "webhook verification with a secret for a provider that has none (sns)";
    UPSTREAM_REFUSED = 8012, "the service behind the publisher's tunnel cannot be reached";
    BASIC_AUTH_USER_LENGTH = 15008, "a basic auth user name longer than 128 characters";
}
