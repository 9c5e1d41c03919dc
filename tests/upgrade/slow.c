/* slow.c - an engine that takes its time: waits until the file GO is there, a minute at most, then becomes the real one, REAL. */
#include <poll.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    (void)argc;
    for (int i = 0; i < 6000 && access(GO, F_OK) != 0; i++)
        poll(0, 0, 10);
    execv(REAL, argv);
    return 9;
}
