/* Which content types are gRPC. */
#include "policy/grpc.h"
#include "tap.h"

int
main(void)
{
  static const char *const yes[] = {"application/grpc", "application/grpc+proto", "Application/GRPC+json", "application/grpc;v=1",
                                    "application/grpc "};
  static const char *const no[]  = {"",
                                    "application/json",
                                    "application/grpc-web",
                                    "application/grpc-web+proto",
                                    "text/grpc",
                                    "application/grpc-web-text",
                                    "application/grp",
                                    "application/grpcx",
                                    " application/grpc"};
  for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
    CHECK(atsk_grpc_is((struct atsk_str){yes[i], strlen(yes[i])}), "gRPC: %s", yes[i]);
  }
  for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
    CHECK(!atsk_grpc_is((struct atsk_str){no[i], strlen(no[i])}), "not gRPC: %s", no[i]);
  }
  CHECK(!atsk_grpc_is((struct atsk_str){NULL, 0}), "not gRPC: no content type");
  CHECK(!atsk_grpc_is((struct atsk_str){"application/grpc-web", 15}), "only so many bytes are looked at");
  return tap_end();
}
