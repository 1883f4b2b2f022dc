/* Endpoint records and commits of tests, in one line each. */
#ifndef ATSK_TESTS_STAGING_H
#define ATSK_TESTS_STAGING_H

#include "blob/atsk_format.h"
#include "blobs.h"
#include "table/publish.h"

#include <string.h>

/* 10.0.x.y:port, ready. */
static inline struct atsk_endpoint_record
endpoint_record(uint32_t number, uint16_t port)
{
  struct atsk_endpoint_record record = {.port = port, .family = ATSK_FAMILY_IPV4, .flags = ATSK_ENDPOINT_READY, .weight = 1};
  const uint8_t addr[4]              = {10, 0, (uint8_t)(number >> 8), (uint8_t)number};
  memcpy(record.addr, addr, sizeof addr);
  return record;
}

static inline struct atsk_span
records_span(const struct atsk_endpoint_record *records, size_t n)
{
  return (struct atsk_span){(const uint8_t *)records, n * sizeof *records};
}

/* Stages service `id` with endpoints `first`..`first` + n - 1. */
static inline enum atsk_status
stage_service(uint64_t id, uint32_t first, uint32_t n)
{
  struct atsk_endpoint_record records[64];
  for (uint32_t i = 0; i < n; i++) {
    records[i] = endpoint_record(first + i, 8080);
  }
  return atsk_commit_service(id, records_span(records, n), ATSK_NONE);
}

/* Stages a virtual host with one prefix rule "/" to `service`, whose route has the id `route`. */
static inline enum atsk_status
stage_vhost(uint16_t port, enum atsk_vhost_place place, const char *host, uint64_t service, uint64_t route)
{
  static struct atsk_span blob; /* made once, before any test lets allocations fail */
  if (blob.ptr == NULL) {
    const struct blob_path path = {"/", false, 0};
    blob                        = blob_build(&path, 1, ATSK_NONE, 1);
  }
  return atsk_commit_vhost(port, place, (struct atsk_str){host, strlen(host)}, blob, &service, 1, &route, 1);
}

#endif
