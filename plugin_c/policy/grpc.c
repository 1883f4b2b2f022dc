/* See grpc.h. */
#include "policy/grpc.h"

bool
atsk_grpc_is(struct atsk_str content_type)
{
  static const char lower[] = ATSK_GRPC_CONTENT_TYPE;
  const size_t len          = sizeof lower - 1;
  if (content_type.len < len) {
    return false;
  }
  for (size_t i = 0; i < len; i++) {
    char c = content_type.ptr[i];
    c      = c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
    if (c != lower[i]) {
      return false;
    }
  }
  const char after = content_type.len > len ? content_type.ptr[len] : ';';
  return after == '+' || after == ';' || after == ' ' || after == '\t' || after == ',';
}
