/* lookup NAME THREADS: looks up NAME for both families, in so many threads at
 * the same time. Prints how long the slowest took, in ms. */
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static const char *name;

static void *lookup(void *took) {
  struct addrinfo hints, *res = NULL;
  struct timespec from, to;
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  clock_gettime(CLOCK_MONOTONIC, &from);
  int rc = getaddrinfo(name, NULL, &hints, &res);
  clock_gettime(CLOCK_MONOTONIC, &to);
  if (rc != 0)
    fprintf(stderr, "%s\n", gai_strerror(rc));
  if (res != NULL)
    freeaddrinfo(res);
  *(double *)took = (to.tv_sec - from.tv_sec) * 1e3 + (to.tv_nsec - from.tv_nsec) / 1e6;
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 3)
    return 2;
  name = argv[1];
  int n = atoi(argv[2]);
  pthread_t *threads = calloc(n, sizeof *threads);
  double *took = calloc(n, sizeof *took), slowest = 0;
  for (int i = 0; i < n; i++)
    if (pthread_create(&threads[i], NULL, lookup, &took[i]) != 0)
      return 1;
  for (int i = 0; i < n; i++) {
    pthread_join(threads[i], NULL);
    if (took[i] > slowest)
      slowest = took[i];
  }
  printf("%.1f\n", slowest);
  return 0;
}
