/* The byte layout of a virtual host's blob, version 1.  Fixed-width little-endian structs, offsets from the blob's start, no
 * pointers; written by atsk8s/compile/encode.py, read by vhost.c.  docs/blob-format.md tells it in prose; a lint test holds
 * layout.py and this file equal.  Only <stdint.h>, no functions.
 *
 *   header | nodes[] | rules[] | backends[] | policies[] | strings
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
#define ATSK_BLOB_VERSION 1u
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
  uint32_t first_condition;    /* method, header and query conditions: reserved, 0 in version 1 */
  uint32_t n_conditions;       /* 0 in version 1 */
  struct atsk_blob_str object; /* "namespace/name" of the object that the rule comes from; logs, explain */
  struct atsk_blob_str path;   /* the path as the object has it, for explain and logs */
};

struct atsk_blob_backend {
  uint32_t service; /* index into the commit's services */
  uint32_t weight;  /* relative, >= 1 */
};

struct atsk_blob_policy { /* a typed record, found by its kind; version 1 defines none, so n_policies is 0 */
  uint32_t kind;
  uint32_t size; /* bytes at off */
  uint32_t off;  /* bytes from the blob's start */
  uint32_t reserved;
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
  uint8_t flags;    /* enum atsk_endpoint_flags; only ready endpoints are handed over today */
  uint32_t weight;  /* relative, >= 1 */
};
ATSK_STATIC_ASSERT(sizeof(struct atsk_endpoint_record) == 24, "endpoint layout");

#endif
