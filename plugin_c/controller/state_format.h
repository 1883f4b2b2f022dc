/* The byte layout of the last good state, version 3: DIR/table.state, written and read by state.c on one machine.  Fixed-width
 * little-endian structs; everything starts at a multiple of 8 bytes, and what is shorter is filled up with zeros.
 *
 *   header | settings, networks, health path | records...
 *
 * A service or certificate stands before what refers to it.  Only <stdint.h>, no functions. */
#ifndef ATSK_STATE_FORMAT_H
#define ATSK_STATE_FORMAT_H

#include <stdint.h>

#include "blob/atsk_format.h"
#include "policy/defaults.h"

#define ATSK_STATE_MAGIC 0x54534B41u /* "AKST" */
#define ATSK_STATE_VERSION 3u
#define ATSK_STATE_MAX (1u << 30) /* bytes; some 4,000,000 simple routes */
#define ATSK_STATE_NAME "table.state"
#define ATSK_OPTIONS_DIGEST 32u /* bytes */

/* In a file an id is below this; a loaded one has it added, so that it is none that Python gives (compile/diff.py counts from 1). */
#define ATSK_STATE_ID_LOADED (UINT64_C(1) << 63)

struct atsk_state_header {
  uint32_t magic;
  uint16_t version;
  uint16_t header_size; /* bytes, sizeof this struct */
  uint64_t total_size;  /* bytes, the whole file */
  uint64_t checksum;    /* SipHash-1-3 of every byte after this field */
  uint32_t blob_version;
  uint32_t n_records;
  uint64_t written_s; /* Unix time */
  uint64_t table_version;
  uint8_t options[ATSK_OPTIONS_DIGEST]; /* options.h */
};

enum atsk_state_flags {
  ATSK_STATE_CACHE                = 1u,
  ATSK_STATE_REJECT_ENCODED_SLASH = 2u,
  ATSK_STATE_ALLOW_LOOPBACK_NAMES = 4u,
  ATSK_STATE_LOG_FIELDS           = 8u,
};

struct atsk_state_settings { /* struct atsk_settings of controller.h */
  uint32_t flags;            /* enum atsk_state_flags */
  uint32_t n_trusted;        /* struct atsk_state_network in a row */
  uint32_t health_path_len;
  uint32_t reserved;                    /* 0 */
  struct atsk_default_numbers defaults; /* defaults.h */
};

struct atsk_state_network {
  uint8_t addr[16]; /* network order; IPv4 in the first 4 */
  uint8_t family;   /* enum atsk_endpoint_family */
  uint8_t bits;
  uint8_t reserved[6];
};

enum atsk_state_kind {
  ATSK_STATE_SERVICE      = 1, /* struct atsk_state_service, struct atsk_endpoint_record... */
  ATSK_STATE_SERVICE_NAME = 2, /* struct atsk_state_name, the name */
  ATSK_STATE_CERTIFICATE  = 3, /* struct atsk_state_certificate, chain, key */
  ATSK_STATE_VHOST        = 4, /* struct atsk_state_vhost, host, service ids, route numbers, blob */
  ATSK_STATE_POLICY       = 5, /* struct atsk_state_policy, host, certificate ids */
};

struct atsk_state_record {
  uint32_t kind; /* enum atsk_state_kind */
  uint32_t size; /* bytes that follow */
};

struct atsk_state_service {
  uint64_t id;
  uint32_t max_failures; /* endpoint_set.h */
  uint32_t reserved;
};

struct atsk_state_name {
  uint64_t id;
  uint16_t port; /* host order */
  uint16_t name_len;
  uint32_t max_failures; /* endpoint_set.h */
};

struct atsk_state_certificate { /* without material: both lengths 0 */
  uint64_t id;
  uint32_t chain_len;
  uint32_t key_len;
};

struct atsk_state_vhost {
  uint16_t local_port;
  uint8_t place; /* enum atsk_vhost_place */
  uint8_t host_len;
  uint32_t blob_len;
  uint32_t n_services;
  uint32_t n_routes;
};

struct atsk_state_policy {
  uint16_t local_port;
  uint8_t place; /* enum atsk_vhost_place */
  uint8_t host_len;
  uint32_t n_certificates;
};

ATSK_STATIC_ASSERT(sizeof(struct atsk_state_header) == 80, "header layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_state_settings) == 80, "settings layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_state_network) == 24, "network layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_state_record) == 8, "record layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_state_service) == 16, "service layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_state_name) == 16, "name layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_state_certificate) == 16, "certificate layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_state_vhost) == 16, "virtual host layout");
ATSK_STATIC_ASSERT(sizeof(struct atsk_state_policy) == 8, "policy layout");

#endif
