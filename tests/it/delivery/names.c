/* Preloaded into a server: its name servers never answer for a name that ends in .dead.test, and say of any other .test that it
 * is this machine. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

static int ends_in(const char *name, const char *end)
{
    size_t length = strlen(name), least = strlen(end);
    return length >= least && !strcmp(name + length - least, end);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    while (name && ends_in(name, ".dead.test"))
        pause();
    return real(name && ends_in(name, ".test") ? "127.0.0.1" : name, service, hints, found);
}
