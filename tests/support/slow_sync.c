/* A disk that is slow to sync: `fdatasync` waits while the file that LIFELONG_SLOW_SYNC names is there.

   Loaded with LD_PRELOAD.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

int fdatasync(int descriptor)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *file = getenv("LIFELONG_SLOW_SYNC");

    while (file != NULL && access(file, F_OK) == 0)
        usleep(5000);
    return next(descriptor);
}
