/* The byte layout of a virtual host's blob, version 2.  Fixed-width little-endian structs, offsets from the blob's start, no
 * pointers; written by atsk8s/compile/encode.py, read by vhost.c.  docs/blob-format.md tells it in prose; a lint test holds
 * layout.py and this file equal.  Only <stdint.h>, no functions.
 *
 *   header | nodes[] | rules[] | backends[] | policies[] | policy data | strings
 *
 * The path trie: node 0 is the root ("before the first slash"); nodes are laid out breadth-first: the children of node 0, then those of
 * node 1, and so on, without gaps, so that first_child of a node that has children is the number of nodes that went before.  Every node
 * then has exactly one parent, with a smaller index, and a walk always ends.  Siblings are sorted by segment bytes (as memcmp, and a
 * prefix before what it is a prefix of), no two alike; a segment holds no slash.  A request path "/a/b/" is the segments "a", "b", "":
 * an Exact match ends at the last one, a Prefix match at any node on the way; a trailing slash of a Prefix path is dropped when it is
 * compiled ("/aaa/bbb/" matches "/aaa/bbb", Ingress v1).
 */
#ifndef ATSK_FORMAT_H
#define ATSK_FORMAT_H

#include <stdint.h>

#define ATSK_BLOB_MAGIC 0x48564B41u /* "AKVH" */
#define ATSK_BLOB_VERSION 2u
#define ATSK_NONE 0xFFFFFFFFu /* "no index" */

/* Bounds of one blob; the writer rejects what exceeds them, the reader refuses it. */
#define ATSK_BLOB_MAX (64u << 20) /* bytes */
#define ATSK_DEPTH_MAX 4096u      /* path segments from root to leaf */

struct atsk_blob_header {
  uint32_t magic;
  uint16_t version;
  uint16_t header_size; /* bytes, sizeof this struct */
  uint32_t total_size;  /* bytes, the whole blob, a multiple of 8 */
  uint32_t n_nodes;     /* >= 1 */
  uint32_t n_rules;
  uint32_t n_backends;
  uint32_t n_policies;
  uint32_t nodes_off; /* bytes from the blob's start; 8-aligned, as every _off is */
  uint32_t rules_off;
  uint32_t backends_off;
  uint32_t policies_off;
  uint32_t strings_off;
  uint32_t strings_size; /* bytes */
  uint32_t default_rule; /* index of the rule for paths that nothing matches (Ingress defaultBackend), or ATSK_NONE */
  uint32_t n_services;   /* length of the array of services that the commit hands over with the blob */
  uint32_t n_routes;     /* length of the array of route states, likewise */
};

struct atsk_blob_str { /* bytes in the strings section, counted from strings_off */
  uint32_t off;
  uint32_t len;
};

struct atsk_blob_node {
  struct atsk_blob_str segment; /* without slashes; may be empty (a trailing slash); the root's is empty */
  uint32_t first_child;         /* node index, > this node's; 0 if n_children is 0 */
  uint32_t n_children;
  uint32_t exact_rule;  /* first rule of the path that ends here, or ATSK_NONE */
  uint32_t n_exact;     /* rules in a row from exact_rule, tried in order: the first whose conditions hold wins */
  uint32_t prefix_rule; /* first rule of the prefix that ends here, or ATSK_NONE */
  uint32_t n_prefix;
};

/* What a rule does with the request before any policy looks at it. */
enum atsk_rule_action {
  ATSK_ACTION_FORWARD    = 0, /* to one of its backends */
  ATSK_ACTION_NO_BACKEND = 1, /* the object names nothing that can serve: 503 */
};

struct atsk_blob_rule {
  uint32_t action;        /* enum atsk_rule_action */
  uint32_t route;         /* index into the commit's route states */
  uint32_t first_backend; /* backends in a row; weights decide among them */
  uint32_t n_backends;    /* 0 unless ATSK_ACTION_FORWARD */
  uint32_t first_policy;  /* policies in a row, sorted by kind */
  uint32_t n_policies;
  uint32_t first_condition;    /* method, header and query conditions: reserved, 0 in version 2 */
  uint32_t n_conditions;       /* 0 in version 2 */
  struct atsk_blob_str object; /* "namespace/name" of the object that the rule comes from; logs, explain */
  struct atsk_blob_str path;   /* the path as the object has it, for explain and logs */
};

struct atsk_blob_backend {
  uint32_t service; /* index into the commit's services */
  uint32_t weight;  /* relative, >= 1 */
};

struct atsk_blob_policy { /* a typed record in the policy data, found by its kind; rules may share both */
  uint32_t kind;          /* enum atsk_policy_kind */
  uint32_t size;          /* bytes at off: the size of the kind's struct */
  uint32_t off;           /* bytes from the blob's start; 8-aligned, between the end of policies[] and strings_off */
  uint32_t reserved;      /* 0 */
};

enum atsk_policy_kind {
  ATSK_POLICY_BALANCE  = 1,
  ATSK_POLICY_AFFINITY = 2,
  ATSK_POLICY_RETRY    = 3,
  ATSK_POLICY_TIMEOUTS = 4,
  ATSK_POLICY_LIMITS   = 5,
  ATSK_POLICY_BODY     = 6,
  ATSK_POLICY_SNIPPET  = 7,
};

/* Bounds of policies; the writer rejects what exceeds them, the reader refuses it. */
#define ATSK_RETRY_TRIES_MAX 8u          /* attempts of one request, the first included */
#define ATSK_RETRY_STATUSES_MAX 8u       /* of one rule */
#define ATSK_HASH_NAME_MAX 256u          /* bytes */
#define ATSK_COOKIE_NAME_MAX 128u        /* bytes */
#define ATSK_COOKIE_ATTRIBUTES_MAX 1024u /* bytes */
#define ATSK_LOAD_PERCENT_MIN 101u       /* with less, a busy service would have nobody to choose */
#define ATSK_LOAD_PERCENT_MAX 1000u
#define ATSK_EXEMPT_MAX 256u    /* address ranges of one rule */
#define ATSK_SNIPPET_MAX 65536u /* bytes */
#define ATSK_EXEMPT_SIZE 18u    /* bytes of one: addr[16] (network order; IPv4 in the first 4, the rest 0), family, bits */

enum atsk_balance {
  ATSK_BALANCE_DEFAULT       = 0, /* what the options say */
  ATSK_BALANCE_ROUND_ROBIN   = 1,
  ATSK_BALANCE_LEAST_REQUEST = 2,
  ATSK_BALANCE_RANDOM        = 3,
  ATSK_BALANCE_HASH          = 4, /* by hash_source */
};

enum atsk_hash_source {
  ATSK_HASH_NONE    = 0,
  ATSK_HASH_ADDRESS = 1, /* the client's */
  ATSK_HASH_URI     = 2, /* path and query, as sent */
  ATSK_HASH_HEADER  = 3, /* its value, by name */
  ATSK_HASH_COOKIE  = 4,
};

struct atsk_policy_balance {
  uint32_t algorithm;        /* enum atsk_balance */
  uint32_t hash_source;      /* enum atsk_hash_source; NONE unless the algorithm is HASH */
  struct atsk_blob_str name; /* of the header (lower case) or cookie, a token (RFC 9110 section 5.6.2); empty otherwise */
  uint32_t load_percent; /* of the mean load, beyond which the next endpoint is taken: 0 no bound, else 101..1000; 0 without HASH */
  uint32_t reserved;     /* 0 */
};

enum atsk_cookie_secure {
  ATSK_SECURE_BY_SCHEME = 0, /* "; Secure" is added when the client came by TLS */
  ATSK_SECURE_ALWAYS    = 1,
  ATSK_SECURE_NEVER     = 2,
};

struct atsk_policy_affinity {
  struct atsk_blob_str name;       /* of the cookie: a token, 1..128 bytes */
  struct atsk_blob_str attributes; /* what follows "name=value" in Set-Cookie, "; Path=/; HttpOnly", say: 0x20..0x7E alone */
  uint32_t secure;                 /* enum atsk_cookie_secure */
  uint32_t reserved;               /* 0 */
};

enum atsk_retry_on {
  ATSK_RETRY_GIVEN          = 1,  /* the bits below are what the object says; 0: the default set, and no other bit is set */
  ATSK_RETRY_CONNECT        = 2,  /* no connection */
  ATSK_RETRY_TIMEOUT        = 4,  /* no answer in time */
  ATSK_RETRY_RESET          = 8,  /* closed before the first byte of an answer */
  ATSK_RETRY_STATUS         = 16, /* one of `statuses` */
  ATSK_RETRY_NON_IDEMPOTENT = 32, /* also what may have been executed */
};

struct atsk_policy_retry {
  uint32_t on;          /* enum atsk_retry_on, bits */
  uint32_t tries;       /* attempts in all, 1..ATSK_RETRY_TRIES_MAX; 0: default */
  uint32_t time_ms;     /* no new attempt after it; ATSK_NONE: default; 0: no bound */
  uint32_t n_statuses;  /* 1..8 with ATSK_RETRY_STATUS, else 0 */
  uint16_t statuses[8]; /* sorted, no two alike, 100..599; the rest 0 */
};

struct atsk_policy_timeouts { /* ATSK_NONE: default; 0: none, but for connect_ms, which is 1 or more */
  uint32_t connect_ms;
  uint32_t read_ms;    /* for an answer's header, and between two reads of its body */
  uint32_t send_ms;    /* between two writes to the endpoint, and two reads of the client's body */
  uint32_t request_ms; /* for the whole request */
};

struct atsk_policy_limits {    /* "client": each by itself; an IPv6 client is its /64 */
  uint32_t client_rate_milli;  /* requests in 1000 s; 0: no limit */
  uint32_t client_burst;       /* requests; >= 1 with a rate, else 0 */
  uint32_t client_concurrency; /* requests at a time; 0: no limit */
  uint32_t total_rate_milli;
  uint32_t total_burst;
  uint32_t total_concurrency;
  struct atsk_blob_str exempt; /* n_exempt * ATSK_EXEMPT_SIZE bytes: clients that the client_ limits are not for */
  uint32_t n_exempt;           /* <= ATSK_EXEMPT_MAX */
  uint32_t scope;              /* index into the commit's route states: whose counts; an object's rules share its first one's */
};

struct atsk_policy_body {
  uint64_t max_bytes; /* of a request's body; 0: unlimited */
};

struct atsk_policy_snippet {
  uint64_t id;               /* first 8 bytes of the text's SHA-256: who has compiled one need not look at the text again */
  struct atsk_blob_str text; /* Lua: 1..ATSK_SNIPPET_MAX bytes */
};

#if defined(__cplusplus)
#define ATSK_STATIC_ASSERT(what, why) static_assert(what, why)
#else
#define ATSK_STATIC_ASSERT(what, why) _Static_assert(what, why)
#endif
ATSK_STATIC_ASSERT(sizeof(struct atsk_blob_header) == 64, "header layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_blob_node) == 32, "node layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_blob_rule) == 48, "rule layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_blob_backend) == 8, "backend layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_blob_policy) == 16, "policy layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_policy_balance) == 24, "balance layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_policy_affinity) == 24, "affinity layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_policy_retry) == 32, "retry layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_policy_timeouts) == 16, "timeouts layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_policy_limits) == 40, "limits layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_policy_body) == 8, "body layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_policy_snippet) == 16, "snippet layout");
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "blobs are little-endian, and read in place"
#endif

/* One endpoint as a commit hands it over (endpoints.h): 24 bytes, sorted by (family, addr, port), no duplicates. */
enum atsk_endpoint_family { ATSK_FAMILY_IPV4 = 4, ATSK_FAMILY_IPV6 = 6 };
enum atsk_endpoint_flags { ATSK_ENDPOINT_READY = 1u, ATSK_ENDPOINT_SERVING = 2u, ATSK_ENDPOINT_TERMINATING = 4u };

struct atsk_endpoint_record {
  uint8_t addr[16]; /* network order; IPv4 in the first 4, the rest 0 */
  uint16_t port;    /* host order, 1..65535 */
  uint8_t family;   /* enum atsk_endpoint_family */
  uint8_t flags;    /* enum atsk_endpoint_flags: READY, or SERVING and TERMINATING (draining); no others are handed over */
  uint32_t weight;  /* relative, >= 1 */
};
ATSK_STATIC_ASSERT(sizeof(struct atsk_endpoint_record) == 24, "endpoint layout");

#endif
