"""Images side by side, each in a thread of its own."""

from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import ThreadpoolController

from skanomaly._optional import import_optional


def map_images(function, images):
    """Apply a function of torch, on the CPU, to images side by side.

    Parameters
    ----------
    function : callable
        Runs under ``torch.inference_mode()``; called in several threads at once.
    images : sequence
        What it is called with, one at a time.

    Returns
    -------
    list
        The results, in order.

    Notes
    -----
    torch's threads are shared out among the images: one image gets all of them, as many images as
    there are threads get one each. Threads that work on an image of their own need not wait for
    each other.
    """
    torch = import_optional("torch", "torch", "this embedder")
    n_threads = torch.get_num_threads()
    n_streams = min(n_threads, len(images))

    def call(image):
        with torch.inference_mode():
            return function(image)

    if n_streams == 1:
        return [call(image) for image in images]
    limits = (ThreadpoolController(), n_threads // n_streams)
    with ThreadPoolExecutor(n_streams, "skanomaly-embed", limit_threads, limits) as pool:
        return list(pool.map(call, images))


def limit_threads(controller, n_threads):
    """Let the calling thread, and no other, use so many threads of torch.

    Parameters
    ----------
    controller : threadpoolctl.ThreadpoolController
    n_threads : int
    """
    torch = import_optional("torch", "torch", "this embedder")
    torch.get_num_threads()  # what torch sets up in each thread would undo the limit
    controller.select(user_api="openmp").limit(limits=n_threads)
