/* slow.c - an engine that takes its time: sleeps SLOW_MS, then becomes the real one, REAL. */
#include <poll.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    (void)argc;
    poll(0, 0, SLOW_MS);
    execv(REAL, argv);
    return 9;
}
