/* lookup NAME FAMILY...: looks up each NAME with the C library, for FAMILY any,
 * 4 or 6, in one thread. Prints, a line each, what getaddrinfo returned (0 or an
 * EAI_ number) and how many addresses. */
#define _GNU_SOURCE
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
  for (int i = 1; i + 1 < argc; i += 2) {
    struct addrinfo hints = {0}, *res = NULL;
    int n = 0;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_family = argv[i + 1][0] == '4' ? AF_INET : argv[i + 1][0] == '6' ? AF_INET6 : AF_UNSPEC;
    int rc = getaddrinfo(argv[i], NULL, &hints, &res);
    for (struct addrinfo *a = res; a != NULL; a = a->ai_next)
      n++;
    printf("%d %d\n", rc, n);
    fflush(stdout);
    if (res != NULL)
      freeaddrinfo(res);
  }
  return 0;
}
