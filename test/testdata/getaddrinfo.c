/* getaddrinfo NAME FAMILY...: looks up each NAME with the C library, for FAMILY
 * 0 (both), 4 or 6. Prints, a line each, the name, what getaddrinfo returned (0
 * or an EAI_ number) and the first address. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <gnu/libc-version.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
  fprintf(stderr, "glibc %s\n", gnu_get_libc_version());
  for (int i = 1; i + 1 < argc; i += 2) {
    struct addrinfo hints = {0}, *res = NULL;
    char text[INET6_ADDRSTRLEN] = "-";
    int family = atoi(argv[i + 1]);
    hints.ai_family = family == 4 ? AF_INET : family == 6 ? AF_INET6 : AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    int rc = getaddrinfo(argv[i], NULL, &hints, &res);
    if (rc == 0)
      getnameinfo(res->ai_addr, res->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST);
    printf("%s %d %s\n", argv[i], rc, text);
    if (res != NULL)
      freeaddrinfo(res);
  }
  return 0;
}
