/* See log_fields.h. */
#include "hooks/log_fields.h"

#include "hooks/incoming.h"
#include "hooks/respond.h"

#include <stdio.h>
#include <string.h>

#define ID_MAX 128u /* bytes of a request id that is taken over */

static const char ingress_name[] = "@Atsk8s-Ingress", service_name[] = "@Atsk8s-Service", id_name[] = "X-Request-Id";

void
atsk_log_fields_take(struct atsk_log_fields *out, struct atsk_str ingress, struct atsk_str service)
{
  out->ingress_len = ingress.len <= sizeof out->ingress ? (uint16_t)ingress.len : 0;
  out->service_len = service.len <= sizeof out->service ? (uint16_t)service.len : 0;
  if (out->ingress_len > 0) {
    memcpy(out->ingress, ingress.ptr, out->ingress_len);
  }
  if (out->service_len > 0) {
    memcpy(out->service, service.ptr, out->service_len);
  }
}

static void
field_add(TSMBuffer bufp, TSMLoc hdr, const char *name, size_t name_len, const char *value, size_t value_len)
{
  TSMLoc field = TS_NULL_MLOC;
  if (value_len > 0 && TSMimeHdrFieldCreateNamed(bufp, hdr, name, (int)name_len, &field) == TS_SUCCESS) {
    (void)TSMimeHdrFieldValueStringSet(bufp, hdr, field, -1, value, (int)value_len);
    (void)TSMimeHdrFieldAppend(bufp, hdr, field);
    (void)TSHandleMLocRelease(bufp, hdr, field);
  }
}

/* All of that name: bounded by the header's own size. */
static void
fields_remove(TSMBuffer bufp, TSMLoc hdr, const char *name, size_t name_len)
{
  for (;;) {
    TSMLoc field = TSMimeHdrFieldFind(bufp, hdr, name, (int)name_len);
    if (field == TS_NULL_MLOC) {
      return;
    }
    const TSReturnCode removed = TSMimeHdrFieldDestroy(bufp, hdr, field);
    (void)TSHandleMLocRelease(bufp, hdr, field);
    if (removed != TS_SUCCESS) {
      return;
    }
  }
}

/* What goes into logs, other systems' headers and URLs without harm: letters, digits, and "-._:/+=@" alone. */
static bool
id_is_sound(const char *id, int len)
{
  if (id == NULL || len < 1 || (unsigned)len > ID_MAX) {
    return false;
  }
  for (int i = 0; i < len; i++) {
    const char c = id[i];
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
          (c != '\0' && strchr("-._:/+=@", c) != NULL))) {
      return false;
    }
  }
  return true;
}

static bool
has_sound_id(TSMBuffer bufp, TSMLoc hdr)
{
  TSMLoc field = TSMimeHdrFieldFind(bufp, hdr, id_name, (int)sizeof id_name - 1);
  if (field == TS_NULL_MLOC) {
    return false;
  }
  int len        = 0;
  const char *id = TSMimeHdrFieldValueStringGet(bufp, hdr, field, -1, &len);
  TSMLoc next    = TSMimeHdrFieldNextDup(bufp, hdr, field);
  bool is_sound  = next == TS_NULL_MLOC && id_is_sound(id, len);
  if (next != TS_NULL_MLOC) {
    (void)TSHandleMLocRelease(bufp, hdr, next);
  }
  (void)TSHandleMLocRelease(bufp, hdr, field);
  return is_sound;
}

void
atsk_log_fields_begin(TSHttpTxn txnp, TSMBuffer bufp, TSMLoc hdr, const struct atsk_settings *settings)
{
  fields_remove(bufp, hdr, ingress_name, sizeof ingress_name - 1);
  fields_remove(bufp, hdr, service_name, sizeof service_name - 1);
  if (!atsk_incoming_is_trusted(txnp, settings) || !has_sound_id(bufp, hdr)) {
    char id[ATSK_REQUEST_ID_LEN + 1];
    (void)snprintf(id, sizeof id, "%016llx", (unsigned long long)atsk_request_number(txnp));
    fields_remove(bufp, hdr, id_name, sizeof id_name - 1);
    field_add(bufp, hdr, id_name, sizeof id_name - 1, id, ATSK_REQUEST_ID_LEN);
  }
}

void
atsk_log_fields_end(TSHttpTxn txnp, const struct atsk_log_fields *fields)
{
  TSMBuffer bufp = NULL;
  TSMLoc hdr     = TS_NULL_MLOC;
  if (TSHttpTxnClientReqGet(txnp, &bufp, &hdr) != TS_SUCCESS) {
    return;
  }
  field_add(bufp, hdr, ingress_name, sizeof ingress_name - 1, fields->ingress, fields->ingress_len);
  field_add(bufp, hdr, service_name, sizeof service_name - 1, fields->service, fields->service_len);
  (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, hdr);
}
